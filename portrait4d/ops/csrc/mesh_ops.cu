// Nearest triangle, nearest vertex and rasteriser on a GPU.
#include <cuda_runtime.h>

#include "kernels.h"
#include "launch.cuh"
#include "mesh_math.h"

namespace portrait4d {
namespace {

constexpr int kTrianglesPerTile = 128;
constexpr int kSlices = 8;
constexpr int kVerticesPerTile = 1024;
constexpr unsigned long long kNothing = ~0ull;

// kSlices threads per point of mesh blockIdx.y; triangles pass through shared memory in ascending order, each slice takes
// every kSlices-th, and the last of equals wins.
__global__ void __launch_bounds__(kThreads * kSlices) nearest_kernel(NearestJob job) {
  __shared__ float tile[kTrianglesPerTile * 9];
  __shared__ float distances[kSlices][kThreads];
  __shared__ int64_t winners[kSlices][kThreads];
  const int column = threadIdx.x, slice = threadIdx.y;
  const int64_t item = blockIdx.y, number = thread_number();
  const bool active = number < job.points;
  float point[3] = {0, 0, 0}, best = INFINITY;
  int64_t winner = 0;
  if (active)
    for (int axis = 0; axis < 3; ++axis) point[axis] = job.positions[3 * (item * job.points + number) + axis];
  for (int64_t first = 0; first < job.triangles; first += kTrianglesPerTile) {
    const int64_t left = job.triangles - first;
    const int count = static_cast<int>(left < kTrianglesPerTile ? left : kTrianglesPerTile);
    __syncthreads();
    for (int k = slice * kThreads + column; k < 9 * count; k += kSlices * kThreads)
      tile[k] = job.corners[9 * (item * job.triangles + first) + k];
    __syncthreads();
    for (int k = slice; k < count; k += kSlices) {
      const float squared = triangle_squared_distance(point, tile + 9 * k);
      if (squared <= best) {
        best = squared;
        winner = first + k;
      }
    }
  }
  distances[slice][column] = best;
  winners[slice][column] = winner;
  __syncthreads();
  if (slice > 0 || !active) return;
  for (int other = 1; other < kSlices; ++other) {
    const float squared = distances[other][column];
    if (squared < best || (squared == best && winners[other][column] > winner)) {
      best = squared;
      winner = winners[other][column];
    }
  }
  job.squared[item * job.points + number] = best;
  job.index[item * job.points + number] = winner;
}

// One thread per point of set blockIdx.y; vertices pass through shared memory in ascending order, the first of equals wins.
__global__ void nearest_vertex_kernel(NearestVertexJob job) {
  __shared__ float tile[kVerticesPerTile * 3];
  const int64_t item = blockIdx.y, number = thread_number();
  const bool active = number < job.points;
  float point[3] = {0, 0, 0}, best = INFINITY;
  int64_t winner = 0;
  if (active)
    for (int axis = 0; axis < 3; ++axis) point[axis] = job.positions[3 * (item * job.points + number) + axis];
  for (int64_t first = 0; first < job.vertices; first += kVerticesPerTile) {
    const int64_t left = job.vertices - first;
    const int count = static_cast<int>(left < kVerticesPerTile ? left : kVerticesPerTile);
    __syncthreads();
    for (int k = threadIdx.x; k < 3 * count; k += blockDim.x)
      tile[k] = job.places[3 * (item * job.vertices + first) + k];
    __syncthreads();
    for (int k = 0; k < count; ++k) {
      const float x = point[0] - tile[3 * k], y = point[1] - tile[3 * k + 1], z = point[2] - tile[3 * k + 2];
      const float squared = x * x + y * y + z * z;
      if (squared < best) {
        best = squared;
        winner = first + k;
      }
    }
  }
  if (!active) return;
  job.squared[item * job.points + number] = best;
  job.index[item * job.points + number] = winner;
}

// One block per triangle. Depths that are not negative sort like their bits: one number holds depth, then the triangle.
__global__ void cover_kernel(RasterJob job) {
  for (int64_t triangle = blockIdx.x; triangle < job.triangles; triangle += gridDim.x) {
    const Corners corners(job.corners, job.triangles, triangle);
    const PixelBox box(corners, job.centres, job.size);
    const int64_t width = box.last_column - box.first_column, height = box.last_row - box.first_row;
    if (width <= 0) continue;
    for (int64_t k = threadIdx.x; k < width * height; k += blockDim.x) {
      const int64_t row = box.first_row + k / width, column = box.first_column + k % width;
      float weights[3];
      const float depth =
          shade<ScalarMath>(corners, -job.centres[column], -job.centres[row], job.perspective, weights) + 0.0f;
      if (!(weights[0] > 0 && weights[1] > 0 && weights[2] > 0 && depth >= 0)) continue;
      const unsigned long long key =
          static_cast<unsigned long long>(__float_as_uint(depth)) << 32 | static_cast<unsigned long long>(triangle);
      const int64_t pixel = (job.picture[triangle] * job.size + row) * job.size + column;
      atomicMin(reinterpret_cast<unsigned long long*>(job.scratch) + pixel, key);
    }
  }
}

__global__ void resolve_kernel(RasterJob job) {
  for (int64_t pixel = thread_number(); pixel < job.pictures * job.size * job.size; pixel += thread_count()) {
    const unsigned long long key = job.scratch[pixel];
    float* weights = job.weights + 3 * pixel;
    if (key == kNothing) {
      job.nearest[pixel] = -1;
      weights[0] = weights[1] = weights[2] = job.depth[pixel] = 0;
      continue;
    }
    const int64_t triangle = static_cast<int64_t>(key & 0xffffffffull);
    const float x = -job.centres[pixel % job.size], y = -job.centres[pixel / job.size % job.size];
    job.nearest[pixel] = triangle;
    job.depth[pixel] =
        shade<ScalarMath>(Corners(job.corners, job.triangles, triangle), x, y, job.perspective, weights);
  }
}

}  // namespace
}  // namespace portrait4d

using namespace portrait4d;

extern "C" {

int portrait4d_nearest_triangle(const NearestJob* job, void* stream) {
  if (job->batch * job->points == 0) return cudaSuccess;
  if (job->points > kMaxBlocks * kThreads) return cudaErrorInvalidValue;
  const dim3 blocks(blocks_for(job->points, kThreads), static_cast<unsigned int>(job->batch));
  nearest_kernel<<<blocks, dim3(kThreads, kSlices), 0, static_cast<cudaStream_t>(stream)>>>(*job);
  return cudaGetLastError();
}

int portrait4d_nearest_vertex(const NearestVertexJob* job, void* stream) {
  if (job->batch * job->points == 0) return cudaSuccess;
  if (job->points > kMaxBlocks * kThreads) return cudaErrorInvalidValue;
  const dim3 blocks(blocks_for(job->points, kThreads), static_cast<unsigned int>(job->batch));
  nearest_vertex_kernel<<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(*job);
  return cudaGetLastError();
}

int portrait4d_rasterize(const RasterJob* job, void* stream) {
  const int64_t pixels = job->pictures * job->size * job->size;
  if (pixels == 0) return cudaSuccess;
  const cudaStream_t queue = static_cast<cudaStream_t>(stream);
  const cudaError_t cleared = cudaMemsetAsync(job->scratch, 0xff, pixels * sizeof(uint64_t), queue);
  if (cleared != cudaSuccess) return cleared;
  if (job->triangles > 0) cover_kernel<<<blocks_for(job->triangles, 1), kThreads, 0, queue>>>(*job);
  resolve_kernel<<<blocks_for(pixels, kThreads), kThreads, 0, queue>>>(*job);
  return cudaGetLastError();
}

}  // extern "C"
