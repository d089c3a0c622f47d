// Softmax of attention's scores, of any type computed in float32.
#include "dense_ops.h"

#include <ATen/Parallel.h>

#include <limits>
#include <vector>

#include "simd.h"

namespace portrait4d {
namespace {

constexpr int64_t kRowsPerTask = 8;

template <class Number>
void soften_row(Number* row, int width, float scale, float* powers) {
  Vector peak = broadcast(-std::numeric_limits<float>::infinity());
  for (int k = 0; k < width; k += kLanes) {
    const Vector x = load(row + k);
    peak = x != x ? x : larger(x, peak);  // a NaN stays
  }
  float parts[kLanes], highest = -std::numeric_limits<float>::infinity();
  store(parts, peak);
  for (float part : parts) highest = part != part || part > highest ? part : highest;
  const Vector factor = broadcast(scale), offset = broadcast(-highest * scale);
  Vector total = {};
  for (int k = 0; k < width; k += kLanes) {
    const Vector power = VectorMath::exp(fused(load(row + k), factor, offset));
    total += power;
    store(powers + k, power);
  }
  const float share = 1 / sum(total);
  for (int k = 0; k < width; k += kLanes) store(row + k, load(powers + k) * share);
}

template <class Number>
void soften_rows(const SoftmaxRows& job, int64_t first, int64_t last) {
  std::vector<float> powers(job.width);
  auto* values = static_cast<Number*>(job.values);
  for (int64_t row = first; row < last; ++row)
    soften_row(values + row * job.width, job.width, job.scale, powers.data());
}

}  // namespace

void softmax_rows_cpu(const SoftmaxRows& job) {
  at::parallel_for(0, job.rows, kRowsPerTask, [&](int64_t first, int64_t last) {
    job.type == NumberType::kFloat32 ? soften_rows<float>(job, first, last) : soften_rows<uint16_t>(job, first, last);
  });
}

}  // namespace portrait4d
