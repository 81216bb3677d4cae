// What this machine allows: bytes read a second from memory, multiply-adds a second in registers, seconds a barrier.
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#include <new>

#include "abi.h"
#include "amx.h"
#include "lanes.h"
#include "team.h"

using namespace bossa;

namespace {

constexpr size_t kBlock = (size_t)1 << 20;  // what a thread claims at a time
constexpr int kLine = 64;
constexpr int kLines = 4;  // read together in each stream

#if defined(BOSSA_LANES_AVX512)
constexpr int kChains = 12;  // independent sums: more than latency times ports, fewer than registers
#elif defined(BOSSA_LANES_AVX2)
constexpr int kChains = 6;  // of two registers each
#else
constexpr int kChains = 4;
#endif

struct Bench {
  Team team;
  float* data;
  size_t bytes;
  bool huge;  // whether the system was asked for 2 MB pages, and did not refuse
  explicit Bench(int threads) : team(threads) {}
};

struct Job {
  Bench* bench;
  int streams;
  int ahead;      // bytes between a read and its prefetch; 0: none
  int64_t steps;
};

// What is kept has to be computed.
template <class T>
inline void keep(const T& value) {
  asm volatile("" ::"m"(value));
}

double now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double timed(Job& job, void (*work)(Worker&, void*)) {
  const double start = now();
  team_run(&job.bench->team, work, &job);
  return now() - start;
}

// Each block is cut into `streams` stretches that are read side by side.
template <int streams>
float read_block(const float* block, int ahead) {
  constexpr size_t stretch = kBlock / streams / sizeof(float);
  f16 sums[kLines] = {splat(0), splat(0), splat(0), splat(0)};
  for (size_t i = 0; i < stretch; i += kLines * kLanes) {
    for (int s = 0; s < streams; s++) {
      const float* p = block + (size_t)s * stretch + i;
      for (int line = 0; line < kLines; line++) {
        if (ahead) __builtin_prefetch((const char*)(p + line * kLanes) + ahead, 0, 0);
        sums[line] = sums[line] + load(p + line * kLanes);
      }
    }
  }
  return sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

void read_all(Worker& w, void* arg) {
  Job& job = *(Job*)arg;
  const int blocks = (int)(job.bench->bytes / kBlock);
  float total = 0;
  for (int i = w.next(); i < blocks; i = w.next()) {
    const float* block = job.bench->data + (size_t)i * (kBlock / sizeof(float));
    switch (job.streams) {
      case 1: total += read_block<1>(block, job.ahead); break;
      case 2: total += read_block<2>(block, job.ahead); break;
      case 4: total += read_block<4>(block, job.ahead); break;
      default: total += read_block<8>(block, job.ahead); break;
    }
  }
  keep(total);
}

void fill(Worker& w, void* arg) {
  Job& job = *(Job*)arg;
  const int blocks = (int)(job.bench->bytes / kBlock);
  const f16 value = splat(0x1p-20f);
  for (int i = w.next(); i < blocks; i = w.next()) {
    float* block = job.bench->data + (size_t)i * (kBlock / sizeof(float));
    for (size_t j = 0; j < kBlock / sizeof(float); j += kLanes) store(block + j, value);
  }
}

void multiply_fp32(Worker&, void* arg) {
  Job& job = *(Job*)arg;
  const float* data = job.bench->data;  // numbers that the compiler does not know
  f16 sums[kChains];
  for (int j = 0; j < kChains; j++) sums[j] = load(data + kLanes * j);
  const f16 a = load(data + 512), b = load(data + 1024);
  for (int64_t i = 0; i < job.steps; i++) {
    for (int j = 0; j < kChains; j++) sums[j] = fma(sums[j], a, b);
  }
  f16 all = sums[0];
  for (int j = 1; j < kChains; j++) all = all + sums[j];
  keep(all);
}

// Products of integers, added up: the instructions of the integer kernels with their adds, on registers alone. An empty
// asm makes the operand new in each step, since a product of the same two numbers would be taken out of the loop.
#if defined(BOSSA_LANES_AVX512) || defined(BOSSA_LANES_AVX2)

#if defined(BOSSA_LANES_AVX512)
using Words = __m512i;
inline Words words(const float* p) { return _mm512_loadu_si512(p); }
#if defined(__AVX512VNNI__)
inline Words dot16(Words sum, Words a, Words b) { return _mm512_dpwssd_epi32(sum, a, b); }
inline Words dot8(Words sum, Words a, Words b) { return _mm512_dpbusd_epi32(sum, a, b); }
#else
inline Words dot16(Words sum, Words a, Words b) { return _mm512_add_epi32(sum, _mm512_madd_epi16(a, b)); }
inline Words dot8(Words sum, Words a, Words b) { return _mm512_add_epi16(sum, _mm512_maddubs_epi16(a, b)); }
#endif
#else
using Words = __m256i;
inline Words words(const float* p) { return _mm256_loadu_si256((const __m256i*)p); }
inline Words dot16(Words sum, Words a, Words b) { return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b)); }
inline Words dot8(Words sum, Words a, Words b) { return _mm256_add_epi16(sum, _mm256_maddubs_epi16(a, b)); }
#endif

// Twelve, since a sum waits five cycles for the last product where one instruction does both; the fewer registers of 256
// bits hold eight, and there a sum waits for an addition alone.
constexpr int kSums = sizeof(Words) == 64 ? 12 : 8;

template <Words (*dot)(Words, Words, Words)>
void multiply_integers(Worker&, void* arg) {
  Job& job = *(Job*)arg;
  const float* data = job.bench->data;
  Words a = words(data), b = words(data + 512);
  // An array would go through memory.
  Words s0 = a, s1 = a, s2 = a, s3 = a, s4 = a, s5 = a, s6 = a, s7 = a, s8 = a, s9 = a, s10 = a, s11 = a;
  const auto add = [&](Words& sum) {
    asm volatile("" : "+v"(a));
    sum = dot(sum, a, b);
    asm volatile("" : "+v"(sum));
  };
  int64_t left = job.steps;  // one at least
  do {
    add(s0), add(s1), add(s2), add(s3), add(s4), add(s5), add(s6), add(s7);
    if constexpr (kSums > 8) add(s8), add(s9), add(s10), add(s11);
  } while (--left > 0);
  keep((s0 ^ s1) ^ (s2 ^ s3) ^ (s4 ^ s5) ^ (s6 ^ s7) ^ (s8 ^ s9) ^ (s10 ^ s11));
}

#if defined(BOSSA_AMX)

// Tiles multiply bytes alone: words are two products each.
template <int products>
void multiply_tiles(Worker&, void* arg) {
  Job& job = *(Job*)arg;
  detail::stored_before_tiles(job.bench->data);
  const detail::Tiles tiles(64);
  _tile_loadd(4, job.bench->data, 64);
  _tile_loadd(5, job.bench->data + 256, 64);
  _tile_loadd(6, job.bench->data + 512, 64);
  _tile_loadd(7, job.bench->data + 768, 64);
  for (int64_t i = 0; i < job.steps * products; i++) {
    _tile_dpbssd(0, 4, 6);
    _tile_dpbssd(1, 4, 7);
    _tile_dpbssd(2, 5, 6);
    _tile_dpbssd(3, 5, 7);
  }
}

constexpr int kProducts8 = 4 * 64 * detail::kAmxSums, kProducts16 = kProducts8;
constexpr auto multiply_int16 = multiply_tiles<2>;
constexpr auto multiply_int8 = multiply_tiles<1>;

#else

constexpr int kProducts16 = kSums * (int)sizeof(Words) / 2, kProducts8 = kSums * (int)sizeof(Words);
constexpr auto multiply_int16 = multiply_integers<dot16>;
constexpr auto multiply_int8 = multiply_integers<dot8>;

#endif

#else

// Plain loops over operands in the first cache, as the portable kernels are: what this compiler makes of them.
constexpr int kDepth = 256;

template <class T>
void multiply_integers(Worker&, void* arg) {
  Job& job = *(Job*)arg;
  T weights[kDepth * kLanes], x[kDepth];
  memcpy(weights, job.bench->data, sizeof weights);
  memcpy(x, job.bench->data + 512, sizeof x);
  int32_t sums[kLanes] = {};
  for (int64_t i = 0; i < job.steps; i++) {
    asm volatile("" ::"r"(weights), "r"(x) : "memory");
    for (int k = 0; k < kDepth; k++) {
      for (int j = 0; j < kLanes; j++) sums[j] += (int32_t)weights[k * kLanes + j] * (int32_t)x[k];
    }
  }
  keep(sums);
}

constexpr int kProducts16 = kDepth * kLanes, kProducts8 = kDepth * kLanes;
constexpr auto multiply_int16 = multiply_integers<int16_t>;
constexpr auto multiply_int8 = multiply_integers<int8_t>;

#endif

void meet(Worker& w, void* arg) {
  for (int64_t i = 0; i < ((Job*)arg)->steps; i++) w.barrier();
}

}  // namespace

extern "C" {

BOSSA_EXPORT void limits_close(void* handle) {
  Bench* bench = (Bench*)handle;
  if (bench->data != nullptr) munmap(bench->data, bench->bytes);
  bench->~Bench();
  free(bench);
}

// `bytes` is a multiple of 2 MB. NULL when they cannot be had.
BOSSA_EXPORT void* limits_open(int32_t threads, int64_t bytes) {
  void* memory = nullptr;
  if (posix_memalign(&memory, 64, sizeof(Bench)) != 0) return nullptr;
  Bench* bench = new (memory) Bench(threads);
  bench->bytes = (size_t)bytes;
  void* data = mmap(nullptr, bench->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  bench->data = data == MAP_FAILED ? nullptr : (float*)data;
  if (bench->data == nullptr) {
    limits_close(bench);
    return nullptr;
  }
  bench->huge = false;
#if defined(MADV_HUGEPAGE)
  bench->huge = madvise(data, bench->bytes, MADV_HUGEPAGE) == 0;
#endif
  Job job{bench, 1, 0, 0};
  timed(job, fill);
  return bench;
}

BOSSA_EXPORT int32_t limits_huge_pages(void* handle) { return ((Bench*)handle)->huge; }

// Bytes a second, over all of the memory once.
BOSSA_EXPORT double limits_read(void* handle, int32_t streams, int32_t ahead) {
  Job job{(Bench*)handle, streams, ahead, 0};
  return (double)job.bench->bytes / timed(job, read_all);
}

// Operations a second, a multiply-add being two.
BOSSA_EXPORT double limits_fp32(void* handle, int64_t steps) {
  Job job{(Bench*)handle, 1, 0, steps};
  return 2.0 * kChains * kLanes * (double)steps * job.bench->team.count / timed(job, multiply_fp32);
}

BOSSA_EXPORT double limits_int16(void* handle, int64_t steps) {
  Job job{(Bench*)handle, 1, 0, steps};
  return 2.0 * kProducts16 * (double)steps * job.bench->team.count / timed(job, multiply_int16);
}

BOSSA_EXPORT double limits_int8(void* handle, int64_t steps) {
  Job job{(Bench*)handle, 1, 0, steps};
  return 2.0 * kProducts8 * (double)steps * job.bench->team.count / timed(job, multiply_int8);
}

// Seconds from one barrier of the team to the next.
BOSSA_EXPORT double limits_barrier(void* handle, int64_t steps) {
  Job job{(Bench*)handle, 1, 0, steps};
  return timed(job, meet) / (double)steps;
}

}  // extern "C"
