// Products of rows of numbers with a small matrix that stays in the caches, and an activation.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "ray_math.h"
#include "simd.h"

namespace portrait4d {

#if defined(__AVX512F__)
constexpr int kWideRows = 4, kWideVectors = 4, kNarrowRows = 8, kNarrowVectors = 2;  // more rows spill registers
#else
constexpr int kWideRows = 2, kWideVectors = 2, kNarrowRows = 4, kNarrowVectors = 1;
#endif

inline int padded(int count) { return (count + kLanes - 1) / kLanes * kLanes; }

// A matrix (outputs, inputs) and its bias (or none), transposed to (inputs, padded outputs) for products with rows of
// inputs.
struct Layer {
  int inputs, width;
  std::vector<float> weights, bias;

  Layer(int outputs, int input_count, const float* weight, const float* bias_values)
      : inputs(input_count), width(padded(outputs)), weights(static_cast<size_t>(width) * inputs), bias(width) {
    for (int output = 0; output < outputs; ++output) {
      bias[output] = bias_values == nullptr ? 0 : bias_values[output];
      for (int input = 0; input < inputs; ++input)
        weights[static_cast<size_t>(input) * width + output] = weight[static_cast<int64_t>(output) * inputs + input];
    }
  }
};

struct Identity {
  static Vector apply(Vector x) { return x; }
};

struct ColourSigmoid {
  static Vector apply(Vector x) { return colour_range(VectorMath::sigmoid(x)); }
};

// One register block of Activation(rows W + b), from column `column` on.
template <int ROWS, int VECTORS, class Activation>
inline void multiply_block(const Layer& layer, const float* const* rows, int column, float* const* results) {
  Vector sums[ROWS][VECTORS];
  for (int row = 0; row < ROWS; ++row)
    for (int v = 0; v < VECTORS; ++v) sums[row][v] = load(&layer.bias[column + v * kLanes]);
  const float* weight = &layer.weights[column];
  for (int input = 0; input < layer.inputs; ++input, weight += layer.width) {
    Vector columns[VECTORS];
    for (int v = 0; v < VECTORS; ++v) columns[v] = load(weight + v * kLanes);
    for (int row = 0; row < ROWS; ++row) {
      const Vector value = broadcast(rows[row][input]);
      for (int v = 0; v < VECTORS; ++v) sums[row][v] = fused(value, columns[v], sums[row][v]);
    }
  }
  // Stored first: an activation in this loop would keep the compiler from holding the sums in registers above.
  for (int row = 0; row < ROWS; ++row)
    for (int v = 0; v < VECTORS; ++v) store(results[row] + column + v * kLanes, sums[row][v]);
  for (int row = 0; row < ROWS; ++row)
    for (int v = 0; v < VECTORS; ++v) {
      float* values = results[row] + column + v * kLanes;
      store(values, Activation::apply(load(values)));
    }
}

template <int ROWS, int VECTORS, class Activation>
inline int multiply_blocks(const Layer& layer, const float* const* rows, int first, int count, float* const* results) {
  for (; first + ROWS <= count; first += ROWS) {
    int column = 0;
    for (; column + VECTORS * kLanes <= layer.width; column += VECTORS * kLanes)
      multiply_block<ROWS, VECTORS, Activation>(layer, rows + first, column, results + first);
    for (; column < layer.width; column += kLanes)
      multiply_block<ROWS, 1, Activation>(layer, rows + first, column, results + first);
  }
  return first;
}

// results[r] = Activation(rows[r] W + b) for `count` rows, each result padded to the layer's width.
template <int ROWS, int VECTORS, class Activation>
void multiply(const Layer& layer, const float* const* rows, int count, float* const* results) {
  const int done = multiply_blocks<ROWS, VECTORS, Activation>(layer, rows, 0, count, results);
  multiply_blocks<1, VECTORS, Activation>(layer, rows, done, count, results);
}

}  // namespace portrait4d
