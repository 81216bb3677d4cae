// Exercises tickets and barriers: every ticket of every round must be drawn once, and no round may overtake another.
#include "team.h"

#include "abi.h"

using namespace bossa;

namespace {

struct Call {
  int rounds, tickets;
  int* drawn;  // [rounds][tickets]
  int* late;   // tickets of a round that a worker found not all drawn after its barrier
};

void run(Worker& worker, void* arg) {
  const Call& call = *(const Call*)arg;
  for (int round = 0; round < call.rounds; round++) {
    int* drawn = call.drawn + round * call.tickets;
    for (int t = worker.next(); t < call.tickets; t = worker.next()) __atomic_fetch_add(&drawn[t], 1, __ATOMIC_RELAXED);
    worker.barrier();
    for (int t = 0; t < call.tickets; t++) {
      if (__atomic_load_n(&drawn[t], __ATOMIC_RELAXED) != 1) __atomic_fetch_add(call.late, 1, __ATOMIC_RELAXED);
    }
  }
}

}  // namespace

extern "C" int run_team(int threads, int steps, int rounds, int tickets, int* drawn) {
  Team team(threads);
  int late = 0;
  for (int step = 0; step < steps; step++) {
    Call call{rounds, tickets, drawn + step * rounds * tickets, &late};
    team_run(&team, run, &call);
  }
  return late;
}

extern "C" int team_size(int threads) {
  Team team(threads);
  return team.count;
}
