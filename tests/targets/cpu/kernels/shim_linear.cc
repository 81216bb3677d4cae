// One linear on a team of its own.
#include "counted.h"
#include "linear.h"

using namespace bossa;

namespace {

struct Call {
  int rows;
  const float* x;
  size_t ldx;
  const float* panels;
  int N, K, group;
  float* y;
  int* calls;  // [rows][ceil(N / 16)] times that each panel of a row was delivered
};

void run(Worker& worker, void* arg) {
  const Call& call = *(const Call*)arg;
  linear(worker, call.rows, call.x, call.ldx, call.panels, call.N, call.K, call.group, counted(call));
}

}  // namespace

// How many units of work a linear is cut into for so many workers, and how many panels one of them has at most.
extern "C" int linear_units(int rows, int panels, int group, int workers, int* largest) {
  const detail::LinearPlan plan = detail::plan_linear(rows, panels, detail::kBlockPanels, group, 4096, workers);
  *largest = plan.unit;
  return plan.units * plan.row_blocks;
}

extern "C" void run_linear(int threads, int rows, const float* x, size_t ldx, const float* panels, int N, int K,
                           int group, float* y, int* calls) {
  Call call{rows, x, ldx, panels, N, K, group, y, calls};
  Team team(threads);
  team_run(&team, run, &call);
}
