// Tri-plane fetch and marching on a GPU, forward and backward.
#include <cuda_runtime.h>

#include "kernels.h"
#include "launch.cuh"

namespace portrait4d {
namespace {

// One thread per point and channel, channels fastest.
__global__ void fetch_kernel(FetchJob job) {
  const PlaneShape shape = job.shape;
  const int channels = shape.channels;
  for (int64_t item = thread_number(); item < job.batch * job.points * channels; item += thread_count()) {
    const int64_t number = item / channels, channel = item % channels;
    const PointTexels texels(shape, job.positions + 3 * number);
    const float* table = job.table + number / job.points * kPlanes * shape.plane_texels() * channels + channel;
    float total = 0;
    for (int plane = 0; plane < kPlanes; ++plane)
      for (int texel = 0; texel < kTexels; ++texel)
        total += texels.weights[plane][texel] * table[texels.row(shape, plane, texel) * channels];
    job.features[item] = total;
  }
}

__global__ void fetch_backward_kernel(FetchJob job) {
  const PlaneShape shape = job.shape;
  const int channels = shape.channels;
  for (int64_t item = thread_number(); item < job.batch * job.points * channels; item += thread_count()) {
    const int64_t number = item / channels, channel = item % channels;
    const PointTexels texels(shape, job.positions + 3 * number);
    float* table = job.table + number / job.points * kPlanes * shape.plane_texels() * channels + channel;
    for (int plane = 0; plane < kPlanes; ++plane)
      for (int texel = 0; texel < kTexels; ++texel)
        atomicAdd(&table[texels.row(shape, plane, texel) * channels],
                  texels.weights[plane][texel] * job.features[item]);
  }
}

// One thread per ray.
__global__ void march_kernel(MarchJob job) {
  const int samples = job.samples;
  for (int64_t ray = thread_number(); ray < job.rays; ray += thread_count()) {
    const float *densities = job.densities + ray * samples, *t = job.distances + ray * samples;
    float* weights = job.weights + ray * (samples - 1);
    for (int k = 0; k + 1 < samples; ++k)
      weights[k] = opacity<ScalarMath>(densities[k], densities[k + 1], t[k], t[k + 1]);
    const RaySum sum = march(samples, t, weights);
    job.depth[ray] = sum.depth;
    job.transmittance[ray] = sum.transmittance;
  }
}

__global__ void march_backward_kernel(MarchJob job) {
  const int64_t samples = job.samples;
  for (int64_t ray = thread_number(); ray < job.rays; ray += thread_count()) {
    const RayGradient gradient{job.weights + ray * (samples - 1), job.depth[ray], job.transmittance[ray]};
    march_backward(job.samples, job.densities + ray * samples, job.distances + ray * samples, gradient,
                   job.scratch + ray * samples, job.to_densities + ray * samples, job.to_distances + ray * samples);
  }
}

// Launches a kernel with a thread per item, none for no items.
template <class Job>
int launch(void (*kernel)(Job), const Job& job, int64_t items, void* stream) {
  if (items == 0) return cudaSuccess;
  kernel<<<blocks_for(items, kThreads), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(job);
  return cudaGetLastError();
}

}  // namespace
}  // namespace portrait4d

using namespace portrait4d;

extern "C" {

int portrait4d_fetch(const FetchJob* job, void* stream) {
  return launch(fetch_kernel, *job, job->batch * job->points * job->shape.channels, stream);
}

int portrait4d_fetch_backward(const FetchJob* job, void* stream) {
  return launch(fetch_backward_kernel, *job, job->batch * job->points * job->shape.channels, stream);
}

int portrait4d_march(const MarchJob* job, void* stream) { return launch(march_kernel, *job, job->rays, stream); }

int portrait4d_march_backward(const MarchJob* job, void* stream) {
  return launch(march_backward_kernel, *job, job->rays, stream);
}

}  // extern "C"
