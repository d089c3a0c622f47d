// Dense operations that only CPUs need. Tensors are contiguous; `type` says of what numbers, others are float32.
#pragma once

#include <cstdint>

#include "simd.h"

namespace portrait4d {

enum class NumberType { kFloat32, kBfloat16 };

struct Convolution {  // 3x3, stride 1, padding 1; then x < 0 ? slope x : x, clamped to +-limit
  NumberType type;
  int64_t batch, height, width;
  int inputs, outputs;  // multiples of 32
  const void* picture;  // (batch, height, width, inputs) of `type`
  const float* weight;  // (outputs, inputs, 3, 3)
  const float* bias;    // (outputs)
  float slope, limit;
  void* result;  // (batch, height, width, outputs) of `type`

  Vector activated(Vector x) const {
    x = x < Vector{} ? x * slope : x;
    return smaller(broadcast(limit), larger(broadcast(-limit), x));
  }
};

struct SoftmaxRows {  // row = softmax(scale row), in place
  NumberType type;
  int64_t rows;
  int width;  // a multiple of 16
  float scale;
  void* values;  // (rows, width) of `type`
};

bool convolves_float32();  // whether this build can
bool convolves_bfloat16();
void convolve_float32_cpu(const Convolution& job);
void convolve_bfloat16_cpu(const Convolution& job);
void softmax_rows_cpu(const SoftmaxRows& job);

}  // namespace portrait4d
