// Sizes of launches.
#pragma once

#include <cstdint>

namespace portrait4d {

constexpr int kThreads = 128;
constexpr int64_t kMaxBlocks = 1 << 20;  // kernels stride over what is left, or their launchers refuse more

inline unsigned int blocks_for(int64_t items, int64_t items_per_block) {
  const int64_t blocks = (items + items_per_block - 1) / items_per_block;
  return static_cast<unsigned int>(blocks < kMaxBlocks ? blocks : kMaxBlocks);
}

__device__ inline int64_t thread_number() { return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; }
__device__ inline int64_t thread_count() { return static_cast<int64_t>(gridDim.x) * blockDim.x; }

}  // namespace portrait4d
