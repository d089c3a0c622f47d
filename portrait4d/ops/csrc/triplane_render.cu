// Fused rendering on a GPU: a warp renders a ray. For positions, densities and the decoder a lane has a sample; for the
// lookup a lane has a channel, so a texel is one coalesced read. Colours are computed at the end, for samples that show.
#include <cuda_runtime.h>

#include "kernels.h"
#include "launch.cuh"

namespace portrait4d {
namespace {

constexpr int kWarp = 32;
constexpr int kWarps = kThreads / kWarp;
constexpr unsigned int kAllLanes = 0xffffffffu;

// The decoder in shared memory, inputs of a unit side by side: hidden (units, CHANNELS), colour (units, CHANNELS).
template <int CHANNELS>
struct SharedDecoder {
  int units;
  float *hidden_weight, *hidden_bias, *density_weight, *colour_weight, *colour_bias;

  __host__ __device__ static size_t size(int units) { return 2 * units * CHANNELS + 2 * units + CHANNELS; }

  __device__ SharedDecoder(float* memory, const Decoder& decoder) : units(decoder.hidden) {
    hidden_weight = memory;
    colour_weight = hidden_weight + units * CHANNELS;
    hidden_bias = colour_weight + units * CHANNELS;
    density_weight = hidden_bias + units;
    colour_bias = density_weight + units;
    for (int k = threadIdx.x; k < units * CHANNELS; k += blockDim.x) {
      hidden_weight[k] = decoder.hidden_weight[k];
      colour_weight[k] = decoder.colour_weight[k % CHANNELS * units + k / CHANNELS];
    }
    for (int k = threadIdx.x; k < units; k += blockDim.x) {
      hidden_bias[k] = decoder.hidden_bias[k];
      density_weight[k] = decoder.density_weight[k];
    }
    for (int k = threadIdx.x; k < CHANNELS; k += blockDim.x) colour_bias[k] = decoder.colour_bias[k];
  }

  __device__ float unit(int number, const float (&features)[CHANNELS]) const {
    float total = hidden_bias[number];
#pragma unroll
    for (int channel = 0; channel < CHANNELS; channel += 4) {
      const float4 weights = four(hidden_weight, number * CHANNELS + channel);
      total = fmaf(weights.x, features[channel], total);
      total = fmaf(weights.y, features[channel + 1], total);
      total = fmaf(weights.z, features[channel + 2], total);
      total = fmaf(weights.w, features[channel + 3], total);
    }
    return ScalarMath::softplus(total);
  }

  // Adds a unit's share to all colours.
  __device__ void add_colours(int number, float unit, float (&colours)[CHANNELS]) const {
#pragma unroll
    for (int channel = 0; channel < CHANNELS; channel += 4) {
      const float4 weights = four(colour_weight, number * CHANNELS + channel);
      colours[channel] = fmaf(weights.x, unit, colours[channel]);
      colours[channel + 1] = fmaf(weights.y, unit, colours[channel + 1]);
      colours[channel + 2] = fmaf(weights.z, unit, colours[channel + 2]);
      colours[channel + 3] = fmaf(weights.w, unit, colours[channel + 3]);
    }
  }

 private:
  // Four numbers in one read; both tables and their rows begin at multiples of 16 bytes.
  __device__ static float4 four(const float* table, int place) { return *reinterpret_cast<const float4*>(table + place); }
};

// What a warp keeps of its ray in shared memory.
template <int CHANNELS>
struct RayBuffers {
  static constexpr int kStride = CHANNELS + 1;  // no two lanes in one bank
  float *features, *texel_weights, *distances, *densities, *sorted_distances, *sorted_densities, *weights, *cumulative;
  int *corners, *order;

  __host__ __device__ static size_t size(int samples) {
    return kWarp * (kStride + kPlanes * kTexels + kPlanes) + 7 * static_cast<size_t>(samples);
  }

  __device__ RayBuffers(float* memory, int samples) {
    features = memory;
    texel_weights = features + kWarp * kStride;
    corners = reinterpret_cast<int*>(texel_weights + kWarp * kPlanes * kTexels);
    distances = reinterpret_cast<float*>(corners + kWarp * kPlanes);
    densities = distances + samples;
    sorted_distances = densities + samples;
    sorted_densities = sorted_distances + samples;
    weights = sorted_densities + samples;
    cumulative = weights + samples;
    order = reinterpret_cast<int*>(cumulative + samples);
  }
};

template <int CHANNELS>
struct Ray {
  const RenderJob& job;
  const SharedDecoder<CHANNELS>& decoder;
  const RayBuffers<CHANNELS>& buffers;
  const float* table;
  HeadPose pose;
  float origin[3], direction[3];
  int lane;

  __device__ Ray(const RenderJob& all, const SharedDecoder<CHANNELS>& network, const RayBuffers<CHANNELS>& own,
                 int64_t number)
      : job(all), decoder(network), buffers(own), pose(all.pose), lane(threadIdx.x % kWarp) {
    const int64_t picture = number / job.rays;
    table = job.table + picture * job.table_texels() * CHANNELS;
    if (!pose.is_identity()) {
      const int64_t fine = pose.fine.resolution, coarse = pose.coarse.resolution;
      pose.fine.values += picture * 4 * fine * fine * fine;
      pose.coarse.values += picture * 4 * coarse * coarse * coarse;
    }
    for (int axis = 0; axis < 3; ++axis) {
      origin[axis] = job.origins[3 * number + axis];
      direction[axis] = job.directions[3 * number + axis];
    }
  }

  // Plane features at this lane's distance; lanes that are not active take part for the others' sake.
  __device__ void look_up(float distance, bool active, float (&features)[CHANNELS]) const {
    if (active) {
      float point[3];
      for (int axis = 0; axis < 3; ++axis) point[axis] = origin[axis] + distance * direction[axis];
      if (!pose.is_identity()) deform(pose, point);
      const PointTexels texels(job.shape, point);
      for (int plane = 0; plane < kPlanes; ++plane) {
        buffers.corners[lane * kPlanes + plane] = static_cast<int>(texels.corner[plane]);
        for (int texel = 0; texel < kTexels; ++texel)
          buffers.texel_weights[(lane * kPlanes + plane) * kTexels + texel] = texels.weights[plane][texel];
      }
    }
    const unsigned int active_lanes = __ballot_sync(kAllLanes, active);
    __syncwarp();
    const int together = kWarp / CHANNELS, channel = lane % CHANNELS;
    const int64_t stride = job.shape.row_stride();
    for (int first = 0; first < kWarp; first += together) {
      const int sample = first + lane / CHANNELS;
      if (!(active_lanes >> sample & 1)) continue;
      float total = 0;
      for (int plane = 0; plane < kPlanes; ++plane) {
        const int64_t corner = buffers.corners[sample * kPlanes + plane];
        const float* weights = buffers.texel_weights + (sample * kPlanes + plane) * kTexels;
        for (int texel = 0; texel < kTexels; ++texel) {
          const int64_t row = corner + (texel >> 1) * stride + (texel & 1);
          total = fmaf(weights[texel], table[row * CHANNELS + channel], total);
        }
      }
      buffers.features[sample * RayBuffers<CHANNELS>::kStride + channel] = total;
    }
    __syncwarp();
#pragma unroll
    for (int k = 0; k < CHANNELS; ++k) features[k] = buffers.features[lane * RayBuffers<CHANNELS>::kStride + k];
    __syncwarp();
  }

  // Computes raw densities of samples first .. last - 1.
  __device__ void find_densities(int first, int last) const {
    for (int start = first; start < last; start += kWarp) {
      const int sample = start + lane;
      const bool active = sample < last;
      float features[CHANNELS];
      look_up(active ? buffers.distances[sample] : 0.0f, active, features);
      if (!active) continue;
      float density = 0;
#pragma unroll 4
      for (int unit = 0; unit < decoder.units; ++unit)
        density = fmaf(decoder.unit(unit, features), decoder.density_weight[unit], density);
      buffers.densities[sample] = density + job.decoder.density_bias[0];
    }
    __syncwarp();
  }

  // Weights of the intervals between samples; what the first lane returns counts.
  __device__ RaySum find_weights(int count, const float* t, const float* densities) const {
    for (int k = lane; k + 1 < count; k += kWarp)
      buffers.weights[k] = opacity<ScalarMath>(densities[k], densities[k + 1], t[k], t[k + 1]);
    __syncwarp();
    RaySum sum{0, 0};
    if (lane == 0) sum = march(count, t, buffers.weights);
    __syncwarp();
    return sum;
  }

  __device__ void draw_fine_samples(const float* quantiles) const {
    if (lane == 0) cumulate(job.coarse, buffers.weights, buffers.cumulative);
    __syncwarp();
    for (int k = lane; k < job.fine; k += kWarp)
      buffers.distances[job.coarse + k] =
          importance_distance(job.coarse, buffers.distances, buffers.cumulative, quantiles[k]);
    __syncwarp();
  }

  __device__ void sort_samples() const {
    const int samples = job.samples();
    for (int k = lane; k < samples; k += kWarp) {
      const float distance = buffers.distances[k];
      int rank = 0;
      for (int other = 0; other < samples; ++other) rank += comes_before(buffers.distances[other], other, distance, k);
      buffers.sorted_distances[rank] = distance;
      buffers.sorted_densities[rank] = buffers.densities[k];
    }
    __syncwarp();
  }

  // Sums up the colours of samples that show, each weighted by half of the intervals on both its sides.
  __device__ void accumulate_colours(float* result) const {
    const int samples = job.samples();
    float sums[CHANNELS] = {};
    for (int start = 0; start < samples; start += kWarp) {
      const int sample = start + lane;
      float weight = 0;
      if (sample < samples) {
        const float before = sample > 0 ? buffers.weights[sample - 1] : 0.0f;
        weight = (before + (sample + 1 < samples ? buffers.weights[sample] : 0.0f)) / 2;
      }
      const bool shows = sample < samples && !(weight < kNegligibleWeight);
      if (__ballot_sync(kAllLanes, shows) == 0) continue;
      float features[CHANNELS], colours[CHANNELS];
      look_up(shows ? buffers.sorted_distances[sample] : 0.0f, shows, features);
      if (!shows) continue;
#pragma unroll
      for (int k = 0; k < CHANNELS; ++k) colours[k] = decoder.colour_bias[k];
      for (int number = 0; number < decoder.units; ++number)
        decoder.add_colours(number, decoder.unit(number, features), colours);
#pragma unroll
      for (int k = 0; k < CHANNELS; ++k) sums[k] = fmaf(weight, colour_range(sigmoid(colours[k])), sums[k]);
    }
#pragma unroll
    for (int k = 0; k < CHANNELS; ++k) {
      for (int step = kWarp / 2; step > 0; step /= 2) sums[k] += __shfl_xor_sync(kAllLanes, sums[k], step);
      if (lane == 0) result[k] = sums[k];
    }
  }
};

template <int CHANNELS>
__global__ void __launch_bounds__(kThreads) render_kernel(RenderJob job) {
  extern __shared__ __align__(16) float memory[];
  const int samples = job.samples();
  const SharedDecoder<CHANNELS> decoder(memory, job.decoder);
  __syncthreads();
  float* own = memory + SharedDecoder<CHANNELS>::size(job.decoder.hidden);
  const RayBuffers<CHANNELS> buffers(own + threadIdx.x / kWarp * RayBuffers<CHANNELS>::size(samples), samples);
  const int lane = threadIdx.x % kWarp;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  for (int64_t number = first; number < job.batch * job.rays; number += static_cast<int64_t>(gridDim.x) * kWarps) {
    const int64_t picture = number / job.rays;
    const Ray<CHANNELS> ray(job, decoder, buffers, number);
    for (int k = lane; k < job.coarse; k += kWarp) buffers.distances[k] = job.distances[picture * job.coarse + k];
    __syncwarp();
    ray.find_densities(0, job.coarse);
    ray.find_weights(job.coarse, buffers.distances, buffers.densities);
    ray.draw_fine_samples(job.quantiles + (job.quantiles_per_ray ? number : picture) * job.fine);
    ray.find_densities(job.coarse, samples);
    ray.sort_samples();
    const RaySum sum = ray.find_weights(samples, buffers.sorted_distances, buffers.sorted_densities);
    if (lane == 0) {
      job.depth[number] = sum.depth;
      job.transmittance[number] = sum.transmittance;
    }
    ray.accumulate_colours(job.features + number * CHANNELS);
    if (job.sample_distances != nullptr) {
      for (int k = lane; k < samples; k += kWarp) {
        job.sample_distances[number * samples + k] = buffers.sorted_distances[k];
        if (k + 1 < samples) job.sample_weights[number * (samples - 1) + k] = buffers.weights[k];
      }
    }
    __syncwarp();
  }
}

template <int CHANNELS>
int launch(const RenderJob& job, cudaStream_t stream) {
  const size_t floats =
      SharedDecoder<CHANNELS>::size(job.decoder.hidden) + kWarps * RayBuffers<CHANNELS>::size(job.samples());
  const int bytes = static_cast<int>(floats * sizeof(float));
  const cudaError_t allowed =
      cudaFuncSetAttribute(render_kernel<CHANNELS>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (allowed != cudaSuccess) return allowed;
  render_kernel<CHANNELS><<<blocks_for(job.batch * job.rays, kWarps), kThreads, bytes, stream>>>(job);
  return cudaGetLastError();
}

}  // namespace
}  // namespace portrait4d

extern "C" int portrait4d_render(const portrait4d::RenderJob* job, void* stream) {
  using namespace portrait4d;
  if (job->batch * job->rays == 0) return cudaSuccess;
  const cudaStream_t queue = static_cast<cudaStream_t>(stream);
  if (job->decoder.outputs != job->shape.channels) return cudaErrorInvalidValue;
  switch (job->shape.channels) {
    case 8: return launch<8>(*job, queue);
    case 16: return launch<16>(*job, queue);
    case 32: return launch<32>(*job, queue);
    default: return cudaErrorInvalidValue;
  }
}
