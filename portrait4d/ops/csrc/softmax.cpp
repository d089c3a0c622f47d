// Softmax of attention's scores, of any type computed in float32.
#include "dense_ops.h"

#include <ATen/Parallel.h>

#include <limits>
#include <vector>

#include "simd.h"

namespace portrait4d {
namespace {

constexpr int64_t kRowsPerTask = 8;

// Numbers in memory, sixteen at once.
struct Float32 {
  using Number = float;
  static Vector read(const float* source) { return load(source); }
  static void write(float* target, Vector x) { store(target, x); }
};

struct Bfloat16 {
  using Number = uint16_t;
  typedef uint16_t Halves __attribute__((vector_size(2 * kLanes)));

  static Vector read(const uint16_t* source) {
    Halves half;
    std::memcpy(&half, source, sizeof half);
    return reinterpret_cast<Vector>(__builtin_convertvector(half, Integers) << 16);
  }

  static void write(uint16_t* target, Vector x) {
#if defined(__AVX512BF16__)
    const __m256bh rounded = _mm512_cvtneps_pbh(reinterpret_cast<__m512>(x));
#else
    const Integers bits = reinterpret_cast<Integers>(x), odd = (bits >> 16) & 1;
    const Halves rounded = __builtin_convertvector(x != x ? bits >> 16 : (bits + 0x7fff + odd) >> 16, Halves);
#endif
    std::memcpy(target, &rounded, sizeof rounded);
  }
};

template <class Type>
void soften_row(typename Type::Number* row, int width, float scale, float* powers) {
  Vector peak = broadcast(-std::numeric_limits<float>::infinity());
  for (int k = 0; k < width; k += kLanes) {
    const Vector x = Type::read(row + k);
    peak = x != x ? x : larger(x, peak);  // a NaN stays
  }
  float parts[kLanes], highest = -std::numeric_limits<float>::infinity();
  store(parts, peak);
  for (float part : parts) highest = part != part || part > highest ? part : highest;
  const Vector factor = broadcast(scale), offset = broadcast(-highest * scale);
  Vector total = {};
  for (int k = 0; k < width; k += kLanes) {
    const Vector power = VectorMath::exp(fused(Type::read(row + k), factor, offset));
    total += power;
    store(powers + k, power);
  }
  const float share = 1 / sum(total);
  for (int k = 0; k < width; k += kLanes) Type::write(row + k, load(powers + k) * share);
}

template <class Type>
void soften_rows(const SoftmaxRows& job, int64_t first, int64_t last) {
  std::vector<float> powers(job.width);
  auto* values = static_cast<typename Type::Number*>(job.values);
  for (int64_t row = first; row < last; ++row)
    soften_row<Type>(values + row * job.width, job.width, job.scale, powers.data());
}

}  // namespace

void softmax_rows_cpu(const SoftmaxRows& job) {
  at::parallel_for(0, job.rows, kRowsPerTask, [&](int64_t first, int64_t last) {
    job.type == NumberType::kFloat32 ? soften_rows<Float32>(job, first, last) : soften_rows<Bfloat16>(job, first, last);
  });
}

}  // namespace portrait4d
