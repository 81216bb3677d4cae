// A team of threads that run one step together: tickets hand out work, barriers separate dependent work.
#pragma once

#include <pthread.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#if defined(__linux__)
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>
#else
#include <sched.h>
#endif

namespace bossa {

namespace detail {

inline void pause_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Sleeps while *word == seen; may wake early.
inline void sleep_while(std::atomic<uint32_t>* word, uint32_t seen) {
#if defined(__linux__)
  syscall(SYS_futex, (uint32_t*)word, FUTEX_WAIT_PRIVATE, seen, nullptr, nullptr, 0);
#else
  (void)word, (void)seen;
  sched_yield();
#endif
}

inline void wake_all(std::atomic<uint32_t>* word) {
#if defined(__linux__)
  syscall(SYS_futex, (uint32_t*)word, FUTEX_WAKE_PRIVATE, INT32_MAX, nullptr, nullptr, 0);
#else
  (void)word;
#endif
}

// A number that goes up, and threads that wait for the next one. Short waits spin, because most barriers are met within
// microseconds; longer ones sleep, because the core may be needed by the very thread that is waited for.
struct Signal {
  alignas(64) std::atomic<uint32_t> value{0};
  alignas(64) std::atomic<int> sleepers{0};

  void raise() {
    value.fetch_add(1);
    if (sleepers.load() > 0) wake_all(&value);
  }

  void wait_past(uint32_t seen, int spins) {
    for (int i = 0; i < spins; i++) {
      if (value.load(std::memory_order_acquire) != seen) return;
      pause_cpu();
    }
    sleepers.fetch_add(1);
    while (value.load() == seen) sleep_while(&value, seen);
    sleepers.fetch_sub(1);
  }
};

// About 40 microseconds of `pause`, several times what waking a sleeper costs.
constexpr int kBarrierSpins = 2000;

// What a step may take of a thread's stack: some 256 KiB in the kernels (a tile of attention), at most 128 KiB for values
// that live in one section (LOCAL_FLOATS in targets/cpu/arena.py) and 512 KiB for values that wait to be stored
// (STORED_VALUES in ir/limits.py).
constexpr size_t kStackBytes = (size_t)2 << 20;

// Whether this thread has so much left. What is not known is taken to be enough.
inline bool has_stack(size_t bytes) {
#if defined(__linux__)
  static thread_local uintptr_t lowest = 0;  // address of this thread's stack; 1 where the system does not say
  if (lowest == 0) {
    pthread_attr_t attributes;
    void* address = nullptr;
    size_t size = 0;
    lowest = 1;
    if (pthread_getattr_np(pthread_self(), &attributes) == 0) {
      if (pthread_attr_getstack(&attributes, &address, &size) == 0 && address) lowest = (uintptr_t)address;
      pthread_attr_destroy(&attributes);
    }
  }
  return lowest == 1 || (uintptr_t)__builtin_frame_address(0) - lowest >= bytes;
#else
  (void)bytes;
  return true;
#endif
}

// Starts a thread that has the stack for a step, whatever the system's default is.
inline bool start_thread(pthread_t* thread, void* (*main)(void*), void* arg) {
  pthread_attr_t attributes;
  if (pthread_attr_init(&attributes) != 0) return false;
  const bool started = pthread_attr_setstacksize(&attributes, 2 * kStackBytes) == 0 &&
                       pthread_create(thread, &attributes, main, arg) == 0;
  pthread_attr_destroy(&attributes);
  return started;
}

}  // namespace detail

struct Team;

// One thread's part in a step.
struct Worker {
  int id;     // 0 .. count - 1
  int count;  // threads in the team
  Team* team;
  int own_ticket = 0;  // the counter of a team of one

  // Waits for every worker; what they wrote before is visible after. Tickets start again at 0.
  void barrier();

  // The next ticket nobody has claimed since the last barrier: 0, 1, 2, ... Only one loop between two barriers may
  // draw tickets.
  int next();
};

struct Team {
  int count = 1;
  int started = 0;
  bool whole = true;  // false where the system started fewer threads than were wanted
  pthread_t* threads = nullptr;
  Worker* workers = nullptr;
  void (*work)(Worker&, void*) = nullptr;
  void* work_arg = nullptr;
  bool closing = false;

  alignas(64) std::atomic<int> ticket{0};
  alignas(64) std::atomic<int> arrived{0};
  detail::Signal phase;  // goes up at each barrier
  detail::Signal step;   // goes up at each team_run

  // Has fewer threads where the system refuses, and works all the same: results do not depend on how many there are.
  explicit Team(int wanted) {
    count = wanted < 1 ? 1 : wanted;
    const int asked = count;
    threads = (pthread_t*)calloc((size_t)count, sizeof(pthread_t));
    workers = (Worker*)calloc((size_t)count, sizeof(Worker));
    for (int id = 0; id < count; id++) workers[id] = Worker{id, count, this};
    for (int id = 1; id < count; id++) {
      if (!detail::start_thread(&threads[id], &Team::thread_main, &workers[id])) break;
      started = id;
    }
    count = started + 1;
    whole = count == asked;
    for (int id = 0; id < count; id++) workers[id].count = count;
  }

  ~Team() {
    closing = true;
    step.raise();
    for (int id = 1; id <= started; id++) pthread_join(threads[id], nullptr);
    free(threads);
    free(workers);
  }

  // Keeps the threads of workers 1, 2, ... on one CPU each.
  bool pin(const int32_t* cpus, int n) {
#if defined(__linux__)
    for (int id = 1; id <= started && id <= n; id++) {
      const int cpu = cpus[id - 1];
      cpu_set_t* set = CPU_ALLOC(cpu + 1);
      if (!set) return false;
      const size_t size = CPU_ALLOC_SIZE(cpu + 1);
      CPU_ZERO_S(size, set);
      CPU_SET_S(cpu, size, set);
      const bool done = pthread_setaffinity_np(threads[id], size, set) == 0;
      CPU_FREE(set);
      if (!done) return false;
    }
    return true;
#else
    (void)cpus, (void)n;
    return false;
#endif
  }

  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

 private:
  static void* thread_main(void* arg) {
    Worker& worker = *(Worker*)arg;
    Team& team = *worker.team;
    for (uint32_t seen = 0;; seen++) {
      team.step.wait_past(seen, 0);
      if (team.closing) return nullptr;
      team.work(worker, team.work_arg);
      worker.barrier();
    }
  }
};

inline void Worker::barrier() {
  if (count == 1) {
    own_ticket = 0;
    return;
  }
  const uint32_t seen = team->phase.value.load(std::memory_order_acquire);
  if (team->arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == count) {
    team->arrived.store(0, std::memory_order_relaxed);
    team->ticket.store(0, std::memory_order_relaxed);
    team->phase.raise();
  } else {
    team->phase.wait_past(seen, detail::kBarrierSpins);
  }
}

inline int Worker::next() {
  return count == 1 ? own_ticket++ : team->ticket.fetch_add(1, std::memory_order_relaxed);
}

// Rows `begin` to `end`, which is not among them.
struct Share {
  int begin, end;
};

// The share `index` of rows in `count` nearly equal ones, one after the other.
inline Share share_of(int rows, int index, int count) {
  return {(int)((int64_t)rows * index / count), (int)((int64_t)rows * (index + 1) / count)};
}

inline Share share_of(const Worker& worker, int rows) { return share_of(rows, worker.id, worker.count); }

namespace detail {

// Takes part as worker 0 until all are done.
inline void* run_first(void* arg) {
  Team* team = (Team*)arg;
  if (team->count > 1) team->step.raise();
  team->work(team->workers[0], team->work_arg);
  team->workers[0].barrier();
  return nullptr;
}

}  // namespace detail

// Runs fn on every worker, the caller being worker 0, and returns when all are done. Not reentrant.
// A caller with too little stack waits for a thread that takes its part; false, and nothing has run, if there is none.
inline bool team_run(Team* team, void (*fn)(Worker&, void*), void* arg) {
  team->work = fn;
  team->work_arg = arg;
  if (detail::has_stack(detail::kStackBytes)) {
    detail::run_first(team);
    return true;
  }
  pthread_t instead;
  if (!detail::start_thread(&instead, &detail::run_first, team)) return false;
  pthread_join(instead, nullptr);
  return true;
}

}  // namespace bossa
