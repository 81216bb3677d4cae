// What this machine allows: bytes read a second from memory, and fp32 multiply-adds a second in registers.
//   limits THREADS   prints {"read_bytes_per_s": ..., "fma_flop_per_s": ...}, the best of several tries
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <chrono>
#include <functional>
#include <thread>
#include <vector>

#include "lanes.h"

using namespace bossa;

static double seconds(int threads, const std::function<void(int)>& work) {
  const auto start = std::chrono::steady_clock::now();
  std::vector<std::thread> team;
  for (int id = 1; id < threads; id++) team.emplace_back(work, id);
  work(0);
  for (std::thread& member : team) member.join();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

int main(int argc, char** argv) {
  const int threads = argc > 1 ? atoi(argv[1]) : 1;
  const size_t floats = (size_t)1 << 27;  // 512 MB: no cache holds it
  std::vector<float> data(floats);
  for (size_t i = 0; i < floats; i++) data[i] = 1.0f / (float)(2 + i % 61 + (size_t)argc);
  std::vector<float> sink((size_t)threads * 64);

  double read = 0, rate = 0;
  for (int attempt = 0; attempt < 5; attempt++) {
    const double t = seconds(threads, [&](int id) {
      const size_t share = floats / (size_t)threads / 64 * 64;
      const float* p = data.data() + share * (size_t)id;
      f16 sum[4] = {splat(0), splat(0), splat(0), splat(0)};
      for (size_t i = 0; i < share; i += 64) {
        for (int j = 0; j < 4; j++) sum[j] = sum[j] + load(p + i + 16 * j);
      }
      store(&sink[(size_t)id * 64], (sum[0] + sum[1]) + (sum[2] + sum[3]));
    });
    const double bytes = 4.0 * (double)(floats / (size_t)threads / 64 * 64) * threads / t;
    if (bytes > read) read = bytes;
  }
  const int64_t steps = 20'000'000;
  for (int attempt = 0; attempt < 5; attempt++) {
    const double t = seconds(threads, [&](int id) {
      f16 acc[6];
      for (int j = 0; j < 6; j++) acc[j] = load(data.data() + 16 * j);  // not known to the compiler, and not 1
      const f16 a = load(data.data() + 128), b = load(data.data() + 256);
      for (int64_t i = 0; i < steps; i++) {
        for (int j = 0; j < 6; j++) acc[j] = fma(acc[j], a, b);
      }
      store(&sink[(size_t)id * 64], ((acc[0] + acc[1]) + (acc[2] + acc[3])) + (acc[4] + acc[5]));
    });
    const double flops = 2.0 * 16 * 6 * (double)steps * threads / t;
    if (flops > rate) rate = flops;
  }
  printf("{\"read_bytes_per_s\": %.4g, \"fma_flop_per_s\": %.4g}\n", read, rate);
  return sink[0] == 12345.0f;
}
