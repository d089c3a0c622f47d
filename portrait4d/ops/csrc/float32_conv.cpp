// 3x3 convolution in float32 by Winograd's algorithm F(4x4, 3x3).
//
// A tile of 4x4 results needs 36 products per pair of channels instead of 144. Pictures are channels-last, so nothing is
// rearranged before or after; a block of tiles goes from transform to transform through the core's caches.
#include <ATen/Parallel.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "dense_ops.h"
#include "simd.h"
#include "winograd_tiles.h"

namespace portrait4d {

#if defined(__AVX512F__)
namespace {

constexpr int kSide = 6, kPositions = kSide * kSide;  // of a transformed tile
constexpr int kResults = 4;                           // per side of a tile
constexpr int kPanel = 2 * kLanes;                    // output channels at once
constexpr int kRows = 12;                             // tiles at once: 24 sums in registers
constexpr int kBlock = 4 * kRows;                     // tiles between transforms

// Applies the transform of pictures to six vectors.
inline void transform_picture(const Vector* x, int stride, Vector* result, int result_stride) {
  const Vector a = x[0], b = x[stride], c = x[2 * stride], d = x[3 * stride], e = x[4 * stride], f = x[5 * stride];
  const Vector four = broadcast(4), five = broadcast(-5), two = broadcast(2);
  const Vector even = fused(-four, c, e), odd = fused(-four, b, d), close = e - c, apart = two * (d - b);
  result[0] = fused(five, c, fused(four, a, e));
  result[result_stride] = even + odd;
  result[2 * result_stride] = even - odd;
  result[3 * result_stride] = close + apart;
  result[4 * result_stride] = close - apart;
  result[5 * result_stride] = fused(five, d, fused(four, b, f));
}

// Applies the transform of kernels to three vectors.
inline void transform_kernel(const Vector* x, int stride, Vector* result, int result_stride) {
  const Vector a = x[0], b = x[stride], c = x[2 * stride];
  const Vector outer = (a + c) * (-1 / 6.0f), inner = b * (1 / 6.0f);
  const Vector wide = fused(a, broadcast(1 / 24.0f), c * (1 / 6.0f)), middle = b * (1 / 12.0f);
  result[0] = a * 0.25f;
  result[result_stride] = outer - inner;
  result[2 * result_stride] = outer + inner;
  result[3 * result_stride] = wide + middle;
  result[4 * result_stride] = wide - middle;
  result[5 * result_stride] = c;
}

// Applies the transform of results to six vectors.
inline void transform_result(const Vector* x, int stride, Vector* result, int result_stride) {
  const Vector near = x[stride] + x[2 * stride], turned = x[stride] - x[2 * stride];
  const Vector far = x[3 * stride] + x[4 * stride], away = x[3 * stride] - x[4 * stride];
  result[0] = x[0] + near + far;
  result[result_stride] = fused(broadcast(2), away, turned);
  result[2 * result_stride] = fused(broadcast(4), far, near);
  result[3 * result_stride] = fused(broadcast(8), away, turned) + x[5 * stride];
}

// Lays out transformed kernels for products: (panels, positions, inputs, panel's outputs).
void transform_kernels(const Convolution& job, float* result) {
  at::parallel_for(0, job.outputs / kLanes, 1, [&](int64_t begin, int64_t end) {
    for (int64_t group = begin; group < end; ++group)
      for (int input = 0; input < job.inputs; ++input) {
        float kernels[9][kLanes];
        for (int lane = 0; lane < kLanes; ++lane)
          for (int k = 0; k < 9; ++k)
            kernels[k][lane] = job.weight[((group * kLanes + lane) * job.inputs + input) * 9 + k];
        Vector x[9], half[3 * kSide], whole[kPositions];
        for (int k = 0; k < 9; ++k) x[k] = load(kernels[k]);
        for (int j = 0; j < 3; ++j) transform_kernel(x + j, 3, half + j, 3);
        for (int i = 0; i < kSide; ++i) transform_kernel(half + 3 * i, 1, whole + kSide * i, 1);
        float* target = result + group / 2 * kPositions * job.inputs * kPanel + input * kPanel + group % 2 * kLanes;
        for (int k = 0; k < kPositions; ++k) store(target + static_cast<int64_t>(k) * job.inputs * kPanel, whole[k]);
      }
  });
}

// sums[row][0 .. kPanel) = rows of `inputs` numbers times a panel, for kRows rows.
inline void multiply(const float* rows, int inputs, const float* panel, float* sums) {
  Vector total[kRows][2];
  // Every loop over `total` is unrolled by order: one that is not would keep it in memory.
#pragma GCC unroll 12
  for (int row = 0; row < kRows; ++row) total[row][0] = total[row][1] = Vector{};
  for (int input = 0; input < inputs; ++input, panel += kPanel) {
    const Vector columns[2] = {load(panel), load(panel + kLanes)};
#pragma GCC unroll 12
    for (int row = 0; row < kRows; ++row) {
      const Vector value = broadcast(rows[static_cast<int64_t>(row) * inputs + input]);
      total[row][0] = fused(value, columns[0], total[row][0]);
      total[row][1] = fused(value, columns[1], total[row][1]);
    }
  }
#pragma GCC unroll 12
  for (int row = 0; row < kRows; ++row) {
    store(sums + row * kPanel, total[row][0]);
    store(sums + row * kPanel + kLanes, total[row][1]);
  }
}

// Convolves blocks of tiles in buffers of its own.
class TileConvolver {
 public:
  TileConvolver(const Convolution& job, const float* kernels)
      : job_(job),
        kernels_(kernels),
        tiles_(job),
        transformed_(new float[static_cast<size_t>(kPositions) * kBlock * job.inputs]()),
        sums_(kPositions * kBlock * kPanel),
        nothing_(job.inputs),
        picture_(static_cast<const float*>(job.picture)),
        result_(static_cast<float*>(job.result)) {}

  void convolve(int64_t first, int64_t last) {
    const int count = static_cast<int>(last - first);
    for (int k = 0; k < count; ++k) gather(first + k, k);
    const int64_t per_position = static_cast<int64_t>(job_.inputs) * kPanel;
    for (int panel = 0; panel < job_.outputs / kPanel; ++panel) {
      for (int position = 0; position < kPositions; ++position)
        for (int row = 0; row < count; row += kRows)
          multiply(&transformed_[(static_cast<int64_t>(position) * kBlock + row) * job_.inputs], job_.inputs,
                   kernels_ + (static_cast<int64_t>(panel) * kPositions + position) * per_position,
                   &sums_[(position * kBlock + row) * kPanel]);
      for (int k = 0; k < count; ++k) scatter(first + k, k, panel * kPanel);
    }
  }

 private:
  // Transforms the 6x6 pixels around a tile.
  void gather(int64_t tile, int k) {
    const float* pixels[kPositions];
    tiles_.find_pixels(tiles_.place(tile), picture_, nothing_.data(), pixels);
    for (int input = 0; input < job_.inputs; input += kLanes) {
      Vector half[kPositions];
      for (int j = 0; j < kSide; ++j) {
        Vector column[kSide];
        for (int i = 0; i < kSide; ++i) column[i] = load(pixels[i * kSide + j] + input);
        transform_picture(column, 1, half + j, kSide);
      }
      for (int i = 0; i < kSide; ++i) {
        Vector row[kSide];
        transform_picture(half + i * kSide, 1, row, 1);
        for (int j = 0; j < kSide; ++j)
          store(&transformed_[(static_cast<int64_t>(i * kSide + j) * kBlock + k) * job_.inputs + input], row[j]);
      }
    }
  }

  // Transforms the sums of a tile back into results of a panel's channels.
  void scatter(int64_t tile, int k, int output) const {
    const auto at = tiles_.place(tile);
    for (int v = 0; v < kPanel; v += kLanes) {
      const Vector bias = load(job_.bias + output + v);
      Vector half[kResults * kSide], result[kResults * kResults];
      for (int j = 0; j < kSide; ++j) {
        Vector column[kSide];
        for (int i = 0; i < kSide; ++i) column[i] = load(&sums_[((i * kSide + j) * kBlock + k) * kPanel + v]);
        transform_result(column, 1, half + j, kSide);
      }
      for (int i = 0; i < kResults; ++i) transform_result(half + i * kSide, 1, result + i * kResults, 1);
      for (int i = 0; i < std::min<int64_t>(kResults, job_.height - at.top); ++i)
        for (int j = 0; j < std::min<int64_t>(kResults, job_.width - at.left); ++j)
          store(result_ + tiles_.pixel(at, i, j) * job_.outputs + output + v,
                job_.activated(result[i * kResults + j] + bias));
    }
  }

  const Convolution& job_;
  const float* kernels_;
  const Tiles<kResults, kResults> tiles_;
  std::unique_ptr<float[]> transformed_;  // (positions, tiles of a block, inputs)
  std::vector<float> sums_;               // (positions, tiles of a block, panel's outputs)
  std::vector<float> nothing_;            // a pixel outside
  const float* picture_;
  float* result_;
};

}  // namespace

bool convolves_float32() { return true; }

void convolve_float32_cpu(const Convolution& job) {
  if (job.batch * job.height * job.width == 0) return;
  const std::unique_ptr<float[]> kernels(new float[static_cast<size_t>(kPositions) * job.inputs * job.outputs]);
  transform_kernels(job, kernels.get());
  const int64_t tiles = Tiles<kResults, kResults>(job).count();
  at::parallel_for(0, (tiles + kBlock - 1) / kBlock, 1, [&](int64_t begin, int64_t end) {
    TileConvolver convolver(job, kernels.get());
    for (int64_t block = begin; block < end; ++block)
      convolver.convolve(block * kBlock, std::min(tiles, (block + 1) * kBlock));
  });
}

#else

bool convolves_float32() { return false; }

void convolve_float32_cpu(const Convolution&) {}

#endif

}  // namespace portrait4d
