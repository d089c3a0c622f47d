// 3x3 convolution in bfloat16 on CPUs with bfloat16 products, by Winograd's algorithm F(2x2, 3x3).
//
// A tile of 2x2 results needs 16 products per pair of channels instead of 36. Tiles and kernels are transformed in float32
// and rounded; products are summed up and transformed back in float32 and rounded. The error is 1.4 (numbers of one sign)
// to 2.5 times (of both) that of a direct convolution. A block of tiles stays in a core's cache from transform to
// transform.
#include <ATen/Parallel.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "dense_ops.h"

#if defined(__AVX512BF16__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#include <immintrin.h>
#endif

namespace portrait4d {

#if defined(__AVX512BF16__) && defined(__AVX512BW__) && defined(__AVX512VL__)
namespace {

constexpr int kSide = 4, kPositions = kSide * kSide;  // of a transformed tile
constexpr int kWidth = 16;                            // float32 numbers in a vector
constexpr int kPanel = 2 * kWidth;                    // output channels at once
constexpr int kRows = 12;                             // tiles at once: 24 sums in registers
constexpr int kBlock = 4 * kRows;                     // tiles whose transforms stay in the cache

inline __m512 widen(const uint16_t* source) {
  const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(source));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

inline void round_to(uint16_t* target, __m512 x) {
  const __m256bh rounded = _mm512_cvtneps_pbh(x);
  std::memcpy(target, &rounded, sizeof rounded);
}

// Applies the transform of pictures, rows (1 0 -1 0), (0 1 1 0), (0 -1 1 0), (0 1 0 -1), to four vectors.
inline void transform_picture(const __m512* x, int stride, __m512* result, int result_stride) {
  const __m512 a = x[0], b = x[stride], c = x[2 * stride], d = x[3 * stride];
  result[0] = _mm512_sub_ps(a, c);
  result[result_stride] = _mm512_add_ps(b, c);
  result[2 * result_stride] = _mm512_sub_ps(c, b);
  result[3 * result_stride] = _mm512_sub_ps(b, d);
}

// Applies the transform of results, rows (1 1 1 0), (0 1 -1 -1), to four vectors.
inline void transform_result(__m512 a, __m512 b, __m512 c, __m512 d, __m512& first, __m512& second) {
  first = _mm512_add_ps(_mm512_add_ps(a, b), c);
  second = _mm512_sub_ps(_mm512_sub_ps(b, c), d);
}

// Applies the transform of kernels, rows (1 0 0), (1/2 1/2 1/2), (1/2 -1/2 1/2), (0 0 1), to three vectors.
inline void transform_kernel(const __m512* x, int stride, __m512* result, int result_stride) {
  const __m512 half = _mm512_set1_ps(0.5f), outer = _mm512_mul_ps(half, _mm512_add_ps(x[0], x[2 * stride]));
  const __m512 middle = _mm512_mul_ps(half, x[stride]);
  result[0] = x[0];
  result[result_stride] = _mm512_add_ps(outer, middle);
  result[2 * result_stride] = _mm512_sub_ps(outer, middle);
  result[3 * result_stride] = x[2 * stride];
}

// Kernels transformed and laid out for products: (panels, positions, pairs of inputs, panel's outputs, 2).
std::vector<uint16_t> transform_kernels(const Convolution& job) {
  std::vector<uint16_t> result(static_cast<size_t>(kPositions) * job.inputs * job.outputs);
  const int64_t per_position = static_cast<int64_t>(job.inputs) * kPanel;
  at::parallel_for(0, job.outputs / kWidth, 1, [&](int64_t begin, int64_t end) {
    for (int64_t group = begin; group < end; ++group)
      for (int input = 0; input < job.inputs; ++input) {
        float kernels[9][kWidth];
        for (int output = 0; output < kWidth; ++output)
          for (int k = 0; k < 9; ++k)
            kernels[k][output] = job.weight[((group * kWidth + output) * job.inputs + input) * 9 + k];
        __m512 x[9], half[3 * kSide], whole[kPositions];
        for (int k = 0; k < 9; ++k) x[k] = _mm512_loadu_ps(kernels[k]);
        for (int j = 0; j < 3; ++j) transform_kernel(x + j, 3, half + j, 3);
        for (int i = 0; i < kSide; ++i) transform_kernel(half + 3 * i, 1, whole + kSide * i, 1);
        uint16_t* target = &result[group / 2 * kPositions * per_position] + input / 2 * 2 * kPanel +
                           group % 2 * 2 * kWidth + input % 2;
        for (int position = 0; position < kPositions; ++position) {
          uint16_t rounded[kWidth];
          round_to(rounded, whole[position]);
          for (int output = 0; output < kWidth; ++output) target[position * per_position + 2 * output] = rounded[output];
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
    _mm512_storeu_ps(sums + row * kPanel + kWidth, total[row][1]);
  }
}

// Convolves blocks of tiles in buffers of its own.
class TileConvolver {
 public:
  TileConvolver(const Convolution& job, const std::vector<uint16_t>& kernels)
      : job_(job),
        kernels_(kernels),
        columns_((job.width + 1) / 2),
        rows_((job.height + 1) / 2),
        transformed_(static_cast<size_t>(kPositions) * kBlock * job.inputs),
        sums_(kPositions * kBlock * kPanel),
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
          multiply(&transformed_[(static_cast<int64_t>(position) * kBlock + row) * job_.inputs], job_.inputs,
                   &kernels_[(static_cast<int64_t>(panel) * kPositions + position) * per_position],
                   &sums_[(position * kBlock + row) * kPanel]);
      for (int k = 0; k < count; ++k) scatter(first + k, k, panel * kPanel);
    }
  }

 private:
  struct Place {
    int64_t picture, top, left;
  };

  Place place(int64_t tile) const {
    return {tile / (rows_ * columns_), tile / columns_ % rows_ * 2, tile % columns_ * 2};
  }

  // Transforms the 4x4 pixels around a tile.
  void gather(int64_t tile, int k) {
    const Place at = place(tile);
    const uint16_t* pixels[kPositions];
    for (int i = 0; i < kSide; ++i)
      for (int j = 0; j < kSide; ++j) {
        const int64_t y = at.top + i - 1, x = at.left + j - 1;
        const bool inside = y >= 0 && y < job_.height && x >= 0 && x < job_.width;
        pixels[i * kSide + j] =
            inside ? picture_ + ((at.picture * job_.height + y) * job_.width + x) * job_.inputs : nothing_.data();
      }
    for (int input = 0; input < job_.inputs; input += kWidth) {
      __m512 x[kPositions], half[kPositions];
      for (int position = 0; position < kPositions; ++position) x[position] = widen(pixels[position] + input);
      for (int j = 0; j < kSide; ++j) transform_picture(x + j, kSide, half + j, kSide);
      for (int i = 0; i < kSide; ++i) transform_picture(half + i * kSide, 1, x + i * kSide, 1);
      for (int position = 0; position < kPositions; ++position)
        round_to(&transformed_[(static_cast<int64_t>(position) * kBlock + k) * job_.inputs + input], x[position]);
    }
  }

  // Transforms the sums of a tile back into results of a panel's channels.
  void scatter(int64_t tile, int k, int output) const {
    const Place at = place(tile);
    for (int v = 0; v < kPanel; v += kWidth) {
      const __m512 bias = _mm512_loadu_ps(job_.bias + output + v);
      __m512 x[kPositions], half[2][kSide], result[2][2];
      for (int position = 0; position < kPositions; ++position)
        x[position] = _mm512_loadu_ps(&sums_[(position * kBlock + k) * kPanel + v]);
      for (int j = 0; j < kSide; ++j)
        transform_result(x[j], x[kSide + j], x[2 * kSide + j], x[3 * kSide + j], half[0][j], half[1][j]);
      for (int i = 0; i < 2; ++i)
        transform_result(half[i][0], half[i][1], half[i][2], half[i][3], result[i][0], result[i][1]);
      for (int64_t row = at.top; row < std::min(job_.height, at.top + 2); ++row)
        for (int64_t column = at.left; column < std::min(job_.width, at.left + 2); ++column)
          round_to(result_ + ((at.picture * job_.height + row) * job_.width + column) * job_.outputs + output + v,
                   activated(_mm512_add_ps(result[row - at.top][column - at.left], bias)));
    }
  }

  __m512 activated(__m512 x) const {
    return reinterpret_cast<__m512>(job_.activated(reinterpret_cast<Vector>(x)));
  }

  const Convolution& job_;
  const std::vector<uint16_t>& kernels_;
  const int64_t columns_, rows_;  // of tiles
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
  const int64_t tiles = job.batch * ((job.height + 1) / 2) * ((job.width + 1) / 2);
  at::parallel_for(0, (tiles + kBlock - 1) / kBlock, 1, [&](int64_t begin, int64_t end) {
    TileConvolver convolver(job, kernels);
    for (int64_t block = begin; block < end; ++block)
      convolver.convolve(block * kBlock, std::min(tiles, (block + 1) * kBlock));
  });
}

#else

bool convolves_bfloat16() { return false; }

void convolve_bfloat16_cpu(const Convolution&) {}

#endif

}  // namespace portrait4d
