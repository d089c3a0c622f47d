// The head-pose deformation of sixteen points at once; ray_math.h says the same for one.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "ray_math.h"
#include "simd.h"

namespace portrait4d {

// A grid of one picture with a border of zeros, so that corners outside need no care.
class BorderedGrid {
 public:
  BorderedGrid(const Grid& grid, int64_t picture)
      : grid_(grid), size_(grid.resolution), side_(size_ + 2), cells_(4 * static_cast<size_t>(side_) * side_ * side_) {
    const float* source = grid.values + picture * 4 * size_ * size_ * size_;
    for (int x = 0; x < size_; ++x)
      for (int y = 0; y < size_; ++y, source += 4 * size_)
        std::memcpy(&cells_[4 * (((x + 1) * static_cast<size_t>(side_) + y + 1) * side_ + 1)], source,
                    sizeof(float) * 4 * size_);
  }

  // Looks up the four channels at sixteen points.
  void sample(const Vector* point, Vector* result) const {
    Vector part[3];
    Integers place[3];
    Integers inside = Integers{} - 1;
    for (int axis = 0; axis < 3; ++axis) {
      const Vector normalised = 2.0f * (point[axis] - grid_.last) / (grid_.last - grid_.first) + 1.0f;
      const Vector position = (normalised + 1.0f) / 2.0f * static_cast<float>(size_ - 1);
      inside &= (position > -1.0f) & (position < static_cast<float>(size_));
      const Vector lower = VectorMath::floor(position);
      part[axis] = position - lower;
      place[axis] = truncated(inside ? lower : broadcast(-1)) + 1;
    }
    const Vector zero = {}, one = broadcast(1);
    const Vector share[2] = {one - part[0], part[0]};
    float weights[4][kLanes], nearer[kLanes], farther[kLanes];
    int32_t corner[kLanes];
    for (int k = 0; k < 4; ++k) store(weights[k], share[k >> 1] * (k & 1 ? part[1] : one - part[1]));
    store(nearer, inside ? one - part[2] : zero);
    store(farther, inside ? part[2] : zero);
    const Integers corners = (place[0] * side_ + place[1]) * side_ + place[2];
    std::memcpy(corner, &corners, sizeof corner);
    float values[4][kLanes];
    for (int lane = 0; lane < kLanes; ++lane) {
      const float* cell = &cells_[4 * static_cast<size_t>(corner[lane])];
      Pair sum = {};
      for (int k = 0; k < 4; ++k) {
        Pair pair;
        std::memcpy(&pair, cell + 4 * ((k >> 1) * side_ + (k & 1)) * side_, sizeof pair);
        sum += pair * weights[k][lane];
      }
      for (int channel = 0; channel < 4; ++channel)
        values[channel][lane] = sum[channel] * nearer[lane] + sum[channel + 4] * farther[lane];
    }
    for (int channel = 0; channel < 4; ++channel) result[channel] = inside ? load(values[channel]) : zero;
  }

 private:
  typedef float Pair __attribute__((vector_size(32)));  // the channels of two cells that are neighbours along z

  Grid grid_;
  int size_, side_;
  std::vector<float> cells_;
};

// The deformation of one picture.
class Deformer {
 public:
  Deformer(const HeadPose& pose, int64_t picture)
      : threshold_(pose.threshold), falloff_(pose.falloff), fine_(pose.fine, picture), coarse_(pose.coarse, picture) {}

  // Carries points of the posed head's space to canonical space, in place.
  void apply(Vector* point) const {
    const Vector zero = {}, one = broadcast(1);
    Vector offset[4], smooth[4] = {};
    fine_.sample(point, offset);
    const Vector excess = offset[3] - threshold_;
    const Vector near = excess <= zero ? one : VectorMath::exp(-falloff_ * excess);
    if (any(near != one)) coarse_.sample(point, smooth);
    for (int axis = 0; axis < 3; ++axis) point[axis] = point[axis] + near * offset[axis] + (one - near) * smooth[axis];
  }

 private:
  float threshold_, falloff_;
  BorderedGrid fine_, coarse_;
};

}  // namespace portrait4d
