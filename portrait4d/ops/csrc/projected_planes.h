// Tri-planes with the decoder's first layer applied.
//
// The layer is linear, as is the lookup, so it is applied to the planes' texels, of which there are fewer than samples;
// looking up its results gives the hidden units before their softplus.
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <vector>

#include "dense_layer.h"
#include "kernels.h"

namespace portrait4d {

constexpr int64_t kTexelsPerTask = 240;

// The decoder laid out for products. The hidden layer's bias is added after the lookup.
struct Network {
  Layer hidden, colour;
  std::vector<float> hidden_bias, density;  // padded
  float density_bias;

  Network(const Decoder& decoder, int channels)
      : hidden(decoder.hidden, channels, decoder.hidden_weight, nullptr),
        colour(decoder.outputs, decoder.hidden, decoder.colour_weight, decoder.colour_bias),
        hidden_bias(hidden.width),
        density(hidden.width),
        density_bias(decoder.density_bias[0]) {
    std::copy_n(decoder.hidden_bias, decoder.hidden, hidden_bias.begin());
    std::copy_n(decoder.density_weight, decoder.hidden, density.begin());
  }
};

// Applies the hidden layer to all texels of a picture.
inline void project_planes(const RenderJob& job, const Layer& layer, const float* table, float* result) {
  at::parallel_for(0, job.table_texels(), kTexelsPerTask, [&](int64_t begin, int64_t end) {
    const float* inputs[kTexelsPerTask];
    float* outputs[kTexelsPerTask];
    for (int64_t start = begin; start < end; start += kTexelsPerTask) {
      const int count = static_cast<int>(std::min(kTexelsPerTask, end - start));
      for (int k = 0; k < count; ++k) {
        inputs[k] = table + (start + k) * job.shape.channels;
        outputs[k] = result + (start + k) * layer.width;
      }
      multiply<kWideRows, kWideVectors, Identity>(layer, inputs, count, outputs);
    }
  });
}

}  // namespace portrait4d
