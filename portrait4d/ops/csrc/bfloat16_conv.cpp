// 3x3 convolution in bfloat16 on CPUs with bfloat16 products, by Winograd's algorithm F(2x4, 3x3).
//
// A tile of 2x4 results needs 24 products per pair of channels instead of 72. Tiles and kernels are transformed in
// float32 and rounded; products are summed up and transformed back in float32 and rounded. The points of the rows'
// transform, 0, +-2/3, +-3/2 and infinity, are those that round least: the error is up to 4 times that of a direct
// convolution (numbers of both signs). A block of tiles stays in a core's cache from transform to transform.
#include <ATen/Parallel.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "dense_ops.h"
#include "winograd_tiles.h"

#if defined(__AVX512BF16__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#include <immintrin.h>
#endif

namespace portrait4d {

#if defined(__AVX512BF16__) && defined(__AVX512BW__) && defined(__AVX512VL__)
namespace {

constexpr int kHeight = 4, kLength = 6, kPositions = kHeight * kLength;  // of a transformed tile
constexpr int kResultRows = 2, kResultColumns = 4;
constexpr float kNear = 2 / 3.0f, kFar = 3 / 2.0f;  // points of rows' transforms; reciprocals of each other
constexpr int kPanel = 2 * kLanes;  // output channels at once
constexpr int kRows = 12;           // tiles at once: 24 sums in registers
constexpr int kMaxBlock = 8 * kRows, kCacheBytes = 600000;  // of tiles whose transforms stay in the cache

// Applies the transform of pictures' columns, rows (1 0 -1 0), (0 1 1 0), (0 -1 1 0), (0 1 0 -1), to four vectors.
inline void transform_picture_column(const Vector* x, Vector* result) {
  const Vector a = x[0], b = x[kLength], c = x[2 * kLength], d = x[3 * kLength];
  result[0] = a - c;
  result[kLength] = b + c;
  result[2 * kLength] = c - b;
  result[3 * kLength] = b - d;
}

// Applies the transform of pictures' rows to six vectors.
inline void transform_picture_row(const Vector* x, Vector* result) {
  const Vector middle = broadcast(-kNear * kNear - kFar * kFar);
  const Vector near_even = fused(broadcast(-kFar * kFar), x[2], x[4]);
  const Vector near_odd = fused(broadcast(kNear), x[3], -kFar * x[1]);
  const Vector far_even = fused(broadcast(-kNear * kNear), x[2], x[4]);
  const Vector far_odd = fused(broadcast(kFar), x[3], -kNear * x[1]);
  result[0] = fused(middle, x[2], x[0] + x[4]);
  result[1] = near_even + near_odd;
  result[2] = near_even - near_odd;
  result[3] = far_even + far_odd;
  result[4] = far_even - far_odd;
  result[5] = fused(middle, x[3], x[1] + x[5]);
}

// Applies the transform of kernels' columns, rows (1 0 0), (1/2 1/2 1/2), (1/2 -1/2 1/2), (0 0 1), to three vectors.
inline void transform_kernel_column(const Vector* x, Vector* result) {
  const Vector outer = 0.5f * (x[0] + x[6]), middle = 0.5f * x[3];
  result[0] = x[0];
  result[3] = outer + middle;
  result[6] = outer - middle;
  result[9] = x[6];
}

// Applies the transform of kernels' rows to three vectors.
inline void transform_kernel_row(const Vector* x, Vector* result) {
  constexpr float kShare = 0.5f / (kFar * kFar - kNear * kNear);
  constexpr float kNearShare = -kShare, kFarShare = kShare;
  const Vector near_even = kNearShare * (kFar * kFar * x[0] + x[2]), near_odd = kNearShare * kFar * x[1];
  const Vector far_even = kFarShare * (kNear * kNear * x[0] + x[2]), far_odd = kFarShare * kNear * x[1];
  result[0] = x[0];
  result[1] = near_even + near_odd;
  result[2] = near_even - near_odd;
  result[3] = far_even + far_odd;
  result[4] = far_even - far_odd;
  result[5] = x[2];
}

// Applies the transform of results' columns, rows (1 1 1 0), (0 1 -1 -1), to four vectors.
inline void transform_result_column(const Vector* x, Vector* result) {
  const Vector a = x[0], b = x[kLength], c = x[2 * kLength], d = x[3 * kLength];
  result[0] = a + b + c;
  result[kLength] = b - c - d;
}

// Applies the transform of results' rows to six vectors.
inline void transform_result_row(const Vector* x, Vector* result) {
  const Vector near_even = x[1] + x[2], near_odd = x[1] - x[2], far_even = x[3] + x[4], far_odd = x[3] - x[4];
  result[0] = x[0] + near_even + far_even;
  result[1] = fused(broadcast(kFar), far_odd, kNear * near_odd);
  result[2] = fused(broadcast(kFar * kFar), far_even, kNear * kNear * near_even);
  result[3] = fused(broadcast(kFar * kFar * kFar), far_odd, fused(broadcast(kNear * kNear * kNear), near_odd, x[5]));
}

// Kernels transformed and laid out for products: (panels, positions, pairs of inputs, panel's outputs, 2).
std::vector<uint16_t> transform_kernels(const Convolution& job) {
  std::vector<uint16_t> result(static_cast<size_t>(kPositions) * job.inputs * job.outputs);
  const int64_t per_position = static_cast<int64_t>(job.inputs) * kPanel;
  at::parallel_for(0, job.outputs / kLanes, 1, [&](int64_t begin, int64_t end) {
    for (int64_t group = begin; group < end; ++group)
      for (int input = 0; input < job.inputs; ++input) {
        float kernels[9][kLanes];
        for (int output = 0; output < kLanes; ++output)
          for (int k = 0; k < 9; ++k)
            kernels[k][output] = job.weight[((group * kLanes + output) * job.inputs + input) * 9 + k];
        Vector x[9], half[3 * kHeight], whole[kPositions];
        for (int k = 0; k < 9; ++k) x[k] = load(kernels[k]);
        for (int j = 0; j < 3; ++j) transform_kernel_column(x + j, half + j);
        for (int i = 0; i < kHeight; ++i) transform_kernel_row(half + 3 * i, whole + kLength * i);
        uint16_t* target = &result[group / 2 * kPositions * per_position] + input / 2 * 2 * kPanel +
                           group % 2 * 2 * kLanes + input % 2;
        for (int position = 0; position < kPositions; ++position) {
          uint16_t rounded[kLanes];
          store(rounded, whole[position]);
          for (int output = 0; output < kLanes; ++output) target[position * per_position + 2 * output] = rounded[output];
        }
      }
  });
  return result;
}

// sums[row][0 .. kPanel) = rows of `inputs` numbers times a panel, for kRows rows.
inline void multiply(const uint16_t* rows, int inputs, const uint16_t* panel, float* sums) {
  __m512 total[kRows][2];
  // Every loop over `total` is unrolled by order: one that is not would keep it in memory.
#pragma GCC unroll 12
  for (int row = 0; row < kRows; ++row) total[row][0] = total[row][1] = _mm512_setzero_ps();
  for (int input = 0; input < inputs; input += 2, panel += 2 * kPanel) {
    const __m512bh columns[2] = {(__m512bh)_mm512_loadu_si512(panel), (__m512bh)_mm512_loadu_si512(panel + kPanel)};
#pragma GCC unroll 12
    for (int row = 0; row < kRows; ++row) {
      int pair;
      std::memcpy(&pair, rows + static_cast<int64_t>(row) * inputs + input, sizeof pair);
      const __m512bh value = (__m512bh)_mm512_set1_epi32(pair);
      total[row][0] = _mm512_dpbf16_ps(total[row][0], value, columns[0]);
      total[row][1] = _mm512_dpbf16_ps(total[row][1], value, columns[1]);
    }
  }
#pragma GCC unroll 12
  for (int row = 0; row < kRows; ++row) {
    _mm512_storeu_ps(sums + row * kPanel, total[row][0]);
    _mm512_storeu_ps(sums + row * kPanel + kLanes, total[row][1]);
  }
}

// Tiles at once: as many as keep their transforms in the cache.
int block_size(const Convolution& job) {
  return std::clamp(kCacheBytes / (kPositions * 2 * job.inputs) / kRows * kRows, kRows, kMaxBlock);
}

// Convolves blocks of tiles in buffers of its own.
class TileConvolver {
 public:
  TileConvolver(const Convolution& job, const std::vector<uint16_t>& kernels)
      : job_(job),
        kernels_(kernels),
        tiles_(job),
        block_(block_size(job)),
        transformed_(static_cast<size_t>(kPositions) * block_ * job.inputs),
        sums_(static_cast<size_t>(kPositions) * block_ * kPanel),
        nothing_(job.inputs),
        picture_(static_cast<const uint16_t*>(job.picture)),
        result_(static_cast<uint16_t*>(job.result)) {}

  void convolve(int64_t first, int64_t last) {
    const int count = static_cast<int>(last - first);
    for (int k = 0; k < count; ++k) gather(first + k, k);
    const int64_t per_position = static_cast<int64_t>(job_.inputs) * kPanel;
    for (int panel = 0; panel < job_.outputs / kPanel; ++panel) {
      for (int position = 0; position < kPositions; ++position)
        for (int row = 0; row < count; row += kRows)
          multiply(&transformed_[(static_cast<int64_t>(position) * block_ + row) * job_.inputs], job_.inputs,
                   &kernels_[(static_cast<int64_t>(panel) * kPositions + position) * per_position],
                   &sums_[(position * block_ + row) * kPanel]);
      for (int k = 0; k < count; ++k) scatter(first + k, k, panel * kPanel);
    }
  }

 private:
  // Transforms the pixels around a tile.
  void gather(int64_t tile, int k) {
    const uint16_t* pixels[kPositions];
    tiles_.find_pixels(tiles_.place(tile), picture_, nothing_.data(), pixels);
    for (int input = 0; input < job_.inputs; input += kLanes) {
      Vector x[kPositions], half[kPositions], row[kLength];
      for (int position = 0; position < kPositions; ++position) x[position] = load(pixels[position] + input);
      for (int j = 0; j < kLength; ++j) transform_picture_column(x + j, half + j);
      for (int i = 0; i < kHeight; ++i) {
        transform_picture_row(half + i * kLength, row);
        for (int j = 0; j < kLength; ++j)
          store(&transformed_[(static_cast<int64_t>(i * kLength + j) * block_ + k) * job_.inputs + input], row[j]);
      }
    }
  }

  // Transforms the sums of a tile back into results of a panel's channels.
  void scatter(int64_t tile, int k, int output) const {
    const auto at = tiles_.place(tile);
    const int64_t below = std::min<int64_t>(kResultRows, job_.height - at.top);
    const int64_t right = std::min<int64_t>(kResultColumns, job_.width - at.left);
    for (int v = 0; v < kPanel; v += kLanes) {
      const Vector bias = load(job_.bias + output + v);
      Vector x[kPositions], half[kResultRows * kLength], row[kResultColumns];
      for (int position = 0; position < kPositions; ++position)
        x[position] = load(&sums_[(position * block_ + k) * kPanel + v]);
      for (int j = 0; j < kLength; ++j) transform_result_column(x + j, half + j);
      for (int64_t i = 0; i < below; ++i) {
        transform_result_row(half + i * kLength, row);
        uint16_t* target = result_ + tiles_.pixel(at, i, 0) * job_.outputs + output + v;
        for (int64_t j = 0; j < right; ++j) store(target + j * job_.outputs, job_.activated(row[j] + bias));
      }
    }
  }

  const Convolution& job_;
  const std::vector<uint16_t>& kernels_;
  const Tiles<kResultRows, kResultColumns> tiles_;
  const int block_;               // tiles at once
  std::vector<uint16_t> transformed_;  // (positions, tiles of a block, inputs)
  std::vector<float> sums_;            // (positions, tiles of a block, panel's outputs)
  std::vector<uint16_t> nothing_;      // a pixel outside
  const uint16_t* picture_;
  uint16_t* result_;
};

}  // namespace

bool convolves_bfloat16() { return true; }

void convolve_bfloat16_cpu(const Convolution& job) {
  if (job.batch * job.height * job.width == 0) return;
  const std::vector<uint16_t> kernels = transform_kernels(job);
  const int64_t tiles = Tiles<kResultRows, kResultColumns>(job).count(), block = block_size(job);
  at::parallel_for(0, (tiles + block - 1) / block, 1, [&](int64_t begin, int64_t end) {
    TileConvolver convolver(job, kernels);
    for (int64_t start = begin * block; start < std::min(tiles, end * block); start += block)
      convolver.convolve(start, std::min(tiles, start + block));
  });
}

#else

bool convolves_bfloat16() { return false; }

void convolve_bfloat16_cpu(const Convolution&) {}

#endif

}  // namespace portrait4d
