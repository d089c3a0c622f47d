// Nearest triangle and rasteriser on a CPU.
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels.h"
#include "mesh_math.h"
#include "simd.h"

namespace portrait4d {
namespace {

constexpr int64_t kPointsPerTask = 64;
constexpr int64_t kRowsPerTask = 16;
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr Integers kLaneNumbers = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

// Sixteen consecutive triangles and their bounding box. Lanes beyond the last triangle are NaN and never win.
struct Block {
  Vector corners[3][3], edges[kEdges][3], lengths[kEdges];
  float low[3], high[3];
  bool any_large = false;

  Block(const float* triangles, int count) {
    for (int k = 0; k < 9; ++k) corners[k / 3][k % 3] = broadcast(NAN);
    for (int axis = 0; axis < 3; ++axis) {
      low[axis] = kInfinity;
      high[axis] = -kInfinity;
    }
    for (int lane = 0; lane < count; ++lane) {
      const float* triangle = triangles + 9 * lane;
      float normal[3];
      any_large = any_large || triangle_normal(triangle, normal) / 2 >= kMinArea;
      for (int k = 0; k < 9; ++k) {
        corners[k / 3][k % 3][lane] = triangle[k];
        low[k % 3] = std::min(low[k % 3], triangle[k]);
        high[k % 3] = std::max(high[k % 3], triangle[k]);
      }
    }
    for (int edge = 0; edge < kEdges; ++edge) {
      for (int axis = 0; axis < 3; ++axis)
        edges[edge][axis] = corners[edge_end(edge)][axis] - corners[edge_start(edge)][axis];
      lengths[edge] = dot(edges[edge], edges[edge]);
    }
  }

  // Squared distances of a point to the triangles.
  Vector squared_distances(const float* point) const {
    const Vector wide[3] = {broadcast(point[0]), broadcast(point[1]), broadcast(point[2])};
    Vector best = broadcast(kInfinity);
    for (int edge = 0; edge < kEdges; ++edge) {
      const Vector squared =
          edge_squared_distance<VectorMath>(wide, corners[edge_start(edge)], edges[edge], lengths[edge]);
      best = squared < best ? squared : best;
    }
    if (any_large) {
      for (int lane = 0; lane < kLanes; ++lane) {
        float triangle[9];
        for (int k = 0; k < 9; ++k) triangle[k] = corners[k / 3][k % 3][lane];
        best[lane] = face_squared_distance(point, triangle, best[lane]);
      }
    }
    return best;
  }

  float squared_distance_to_box(const float* point) const {
    float squared = 0;
    for (int axis = 0; axis < 3; ++axis) {
      const float outside = std::max({low[axis] - point[axis], point[axis] - high[axis], 0.0f});
      squared += outside * outside;
    }
    return squared;
  }
};

float smallest(Vector x) {
  float result = x[0];
  for (int lane = 1; lane < kLanes; ++lane) result = std::min(result, x[lane]);
  return result;
}

// Squared distance to a box beyond which nothing in it can win or tie; far above float32 rounding at head-model scale.
float search_limit(float squared) {
  const float reach = std::sqrt(squared) * 1.0001f + 1e-5f;
  return reach * reach;
}

// Finds the nearest triangle of a point, the last one of equals. `guess` is a block that is probably near; updated.
void find_nearest(const std::vector<Block>& blocks, const float* point, size_t& guess, float& squared, int64_t& index) {
  float bound = smallest(blocks[guess].squared_distances(point)), limit = search_limit(bound);
  Vector best = broadcast(kInfinity);
  Integers winners = {};
  for (size_t block = 0; block < blocks.size(); ++block) {
    if (blocks[block].squared_distance_to_box(point) > limit) continue;
    const Vector distances = blocks[block].squared_distances(point);
    const auto closer = distances <= best;
    best = closer ? distances : best;
    winners = closer ? kLaneNumbers + static_cast<int32_t>(block * kLanes) : winners;
    const float smaller = smallest(best);
    if (smaller < bound) {
      bound = smaller;
      limit = search_limit(bound);
    }
  }
  squared = smallest(best);
  index = -1;
  for (int lane = 0; lane < kLanes; ++lane)
    if (best[lane] == squared) index = std::max<int64_t>(index, winners[lane]);
  guess = static_cast<size_t>(index / kLanes);
}

// The rows first .. last - 1 of one picture: the nearest triangle of each pixel, rows padded by a vector.
class Band {
 public:
  Band(const RasterJob& job, int64_t first, int64_t last)
      : job_(job),
        first_(first),
        last_(last),
        stride_(job.size + kLanes),
        depth_(stride_ * (last - first), kInfinity),
        nearest_(stride_ * (last - first), -1) {}

  void draw(int64_t triangle) {
    const Corners corners(job_.corners, job_.triangles, triangle);
    const PixelBox box(corners, job_.centres, job_.size);
    for (int64_t row = std::max(box.first_row, first_); row < std::min(box.last_row, last_); ++row) {
      for (int64_t column = box.first_column; column < box.last_column; column += kLanes) {
        const int lanes = static_cast<int>(std::min<int64_t>(kLanes, box.last_column - column));
        draw_pixels(corners, static_cast<int32_t>(triangle), row, column, lanes);
      }
    }
  }

  void write(int64_t picture) const {
    for (int64_t row = first_; row < last_; ++row) {
      for (int64_t column = 0; column < job_.size; ++column) {
        const int32_t triangle = nearest_[(row - first_) * stride_ + column];
        const int64_t pixel = (picture * job_.size + row) * job_.size + column;
        job_.nearest[pixel] = triangle;
        float* weights = job_.weights + 3 * pixel;
        if (triangle < 0) {
          std::fill_n(weights, 3, 0.0f);
          job_.depth[pixel] = 0;
          continue;
        }
        const Corners corners(job_.corners, job_.triangles, triangle);
        job_.depth[pixel] =
            shade<ScalarMath>(corners, -job_.centres[column], -job_.centres[row], job_.perspective, weights);
      }
    }
  }

 private:
  void draw_pixels(const Corners& corners, int32_t triangle, int64_t row, int64_t column, int lanes) {
    const Vector x = -load_first(job_.centres + column, lanes), y = broadcast(-job_.centres[row]);
    Vector weights[3];
    const Vector zero = {}, depth = shade<VectorMath>(corners, x, y, job_.perspective, weights);
    float* depths = &depth_[(row - first_) * stride_ + column];
    int32_t* nearest = &nearest_[(row - first_) * stride_ + column];
    const Vector before = load(depths);
    Integers owners;
    std::memcpy(&owners, nearest, sizeof owners);
    const auto drawn = (weights[0] > zero) & (weights[1] > zero) & (weights[2] > zero) & (depth >= zero) &
                       (depth < before) & (kLaneNumbers < lanes);
    store(depths, drawn ? depth : before);
    owners = drawn ? triangle - Integers{} : owners;
    std::memcpy(nearest, &owners, sizeof owners);
  }

  const RasterJob& job_;
  const int64_t first_, last_, stride_;
  std::vector<float> depth_;
  std::vector<int32_t> nearest_;
};

}  // namespace

void nearest_triangle_cpu(const NearestJob& job) {
  for (int64_t item = 0; item < job.batch; ++item) {
    const float* triangles = job.corners + 9 * item * job.triangles;
    std::vector<Block> blocks;
    for (int64_t first = 0; first < job.triangles; first += kLanes)
      blocks.emplace_back(triangles + 9 * first, static_cast<int>(std::min<int64_t>(kLanes, job.triangles - first)));
    at::parallel_for(item * job.points, (item + 1) * job.points, kPointsPerTask, [&](int64_t begin, int64_t end) {
      size_t guess = 0;
      for (int64_t number = begin; number < end; ++number)
        find_nearest(blocks, job.positions + 3 * number, guess, job.squared[number], job.index[number]);
    });
  }
}

void rasterize_cpu(const RasterJob& job) {
  const int64_t bands = (job.size + kRowsPerTask - 1) / kRowsPerTask;
  at::parallel_for(0, job.pictures * bands, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t picture = task / bands, first_row = task % bands * kRowsPerTask;
      const auto range = std::equal_range(job.picture, job.picture + job.triangles, picture);
      Band band(job, first_row, std::min(job.size, first_row + kRowsPerTask));
      for (const int64_t* owner = range.first; owner != range.second; ++owner) band.draw(owner - job.picture);
      band.write(picture);
    }
  });
}

}  // namespace portrait4d
