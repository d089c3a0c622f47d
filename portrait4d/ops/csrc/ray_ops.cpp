// Tri-plane fetch and marching on a CPU, forward and backward, for training.
#include <ATen/Parallel.h>

#include <algorithm>
#include <vector>

#include "kernels.h"
#include "simd.h"

namespace portrait4d {
namespace {

constexpr int64_t kPointsPerTask = 1024;
constexpr int64_t kRaysPerTask = 64;

// The intervals of a ray, sixteen computed at once.
class VectorIntervals {
 public:
  explicit VectorIntervals(int samples)
      : densities_(samples + kLanes), clear_(samples + kLanes), slopes_(samples + kLanes) {}

  void fill(int samples, const float* densities, const float* t) {
    for (int k = 0; k + 1 < samples; k += kLanes) {
      const int lanes = std::min(kLanes, samples - 1 - k);
      const Vector raw = (load_first(densities + k + 1, lanes) + load_first(densities + k, lanes)) / 2.0f - 1.0f;
      const Vector density = VectorMath::softplus(raw);
      store(&densities_[k], density);
      store(&clear_[k], VectorMath::exp(-density * (load_first(t + k + 1, lanes) - load_first(t + k, lanes))));
      store(&slopes_[k], VectorMath::sigmoid(raw));
    }
  }

  Interval operator()(int k) const { return {densities_[k], clear_[k], slopes_[k]}; }

 private:
  std::vector<float> densities_, clear_, slopes_;
};

}  // namespace

void fetch_cpu(const FetchJob& job) {
  const PlaneShape shape = job.shape;
  const int channels = shape.channels;
  at::parallel_for(0, job.batch * job.points, kPointsPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t number = begin; number < end; ++number) {
      const PointTexels texels(shape, job.positions + 3 * number);
      const float* table = job.table + number / job.points * kPlanes * shape.plane_texels() * channels;
      float* result = job.features + number * channels;
      std::fill_n(result, channels, 0.0f);
      for (int plane = 0; plane < kPlanes; ++plane) {
        for (int texel = 0; texel < kTexels; ++texel) {
          const float* source = table + texels.row(shape, plane, texel) * channels;
          const float weight = texels.weights[plane][texel];
          for (int channel = 0; channel < channels; ++channel) result[channel] += weight * source[channel];
        }
      }
    }
  });
}

// Each task owns a band of rows of one plane and adds what the points give to it: no two tasks write the same texel.
void fetch_backward_cpu(const FetchJob& job) {
  const PlaneShape shape = job.shape;
  const int channels = shape.channels;
  const int64_t planes = job.batch * kPlanes, rows = shape.height + 2 * kPadding;
  if (planes == 0) return;
  const int64_t bands = std::min<int64_t>(rows, (2 * at::get_num_threads() + planes - 1) / planes);
  at::parallel_for(0, planes * bands, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t picture = task / bands / kPlanes, band = task % bands;
      const int plane = static_cast<int>(task / bands % kPlanes);
      const int64_t first = plane * shape.plane_texels() + band * rows / bands * shape.row_stride();
      const int64_t last = plane * shape.plane_texels() + (band + 1) * rows / bands * shape.row_stride();
      float* table = job.table + picture * kPlanes * shape.plane_texels() * channels;
      for (int64_t number = picture * job.points; number < (picture + 1) * job.points; ++number) {
        const PointTexels texels(shape, job.positions + 3 * number);
        const float* gradient = job.features + number * channels;
        for (int texel = 0; texel < kTexels; ++texel) {
          const int64_t row = texels.row(shape, plane, texel);
          if (row < first || row >= last) continue;
          const float weight = texels.weights[plane][texel];
          for (int channel = 0; channel < channels; ++channel)
            table[row * channels + channel] += weight * gradient[channel];
        }
      }
    }
  });
}

void march_cpu(const MarchJob& job) {
  const int samples = job.samples;
  at::parallel_for(0, job.rays, kRaysPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t ray = begin; ray < end; ++ray) {
      const float *densities = job.densities + ray * samples, *t = job.distances + ray * samples;
      float* weights = job.weights + ray * (samples - 1);
      for (int k = 0; k + 1 < samples; k += kLanes) {
        const int lanes = std::min(kLanes, samples - 1 - k);
        float values[kLanes];
        store(values, opacity<VectorMath>(load_first(densities + k, lanes), load_first(densities + k + 1, lanes),
                                          load_first(t + k, lanes), load_first(t + k + 1, lanes)));
        std::copy_n(values, lanes, weights + k);
      }
      const RaySum sum = march(samples, t, weights);
      job.depth[ray] = sum.depth;
      job.transmittance[ray] = sum.transmittance;
    }
  });
}

void march_backward_cpu(const MarchJob& job) {
  const int samples = job.samples;
  at::parallel_for(0, job.rays, kRaysPerTask, [&](int64_t begin, int64_t end) {
    VectorIntervals intervals(samples);
    for (int64_t ray = begin; ray < end; ++ray) {
      const float* t = job.distances + ray * samples;
      const RayGradient gradient{job.weights + ray * (samples - 1), job.depth[ray], job.transmittance[ray]};
      intervals.fill(samples, job.densities + ray * samples, t);
      march_backward(samples, intervals, t, gradient, job.scratch + ray * samples, job.to_densities + ray * samples,
                     job.to_distances + ray * samples);
    }
  });
}

}  // namespace portrait4d
