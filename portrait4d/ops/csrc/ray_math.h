// Arithmetic of rays through tri-planes, one function for CPU and GPU (rendering.md sections 3 to 6, deformation.md 4).
//
// Every product and sum is rounded on its own, as PyTorch's are, unless fused multiply-add is written out: compile with
// -ffp-contract=off (-fmad=false). Templates take their number type from a policy `M`: ScalarMath here, sixteen samples
// at once in simd.h.
#pragma once

#include <cmath>
#include <cstdint>

#ifdef __CUDACC__
#define PORTRAIT4D_HD __host__ __device__ inline
#else
#define PORTRAIT4D_HD inline
#endif

namespace portrait4d {

constexpr int kPadding = 2;  // texels of zeros around each plane, as laid out by ops/triplane_fetch.py
constexpr int kPlanes = 3;
constexpr int kTexels = 4;  // of each plane that a point touches
constexpr float kNegligibleWeight = 1e-9f;  // colours of lighter samples are not computed: an error below 1e-7

struct ScalarMath {
  using Number = float;
  static PORTRAIT4D_HD float broadcast(float x) { return x; }
  static PORTRAIT4D_HD float exp(float x) { return ::expf(x); }
  static PORTRAIT4D_HD float floor(float x) { return ::floorf(x); }
  static PORTRAIT4D_HD float softplus(float x) { return (x < 0 ? 0 : x) + ::log1pf(::expf(x < 0 ? x : -x)); }
};

PORTRAIT4D_HD float sigmoid(float x) { return 1 / (1 + ::expf(-x)); }

// Maps the decoder's raw colour to its range.
template <class Number>
PORTRAIT4D_HD Number colour_range(Number share) {
  return share * 1.002f - 0.001f;
}

// ---- tri-planes -----------------------------------------------------------------------------------------------------

// Texel coordinate of a position scaled to [-1, 1]; clamped into the padding. NaN stays NaN.
template <class M>
PORTRAIT4D_HD typename M::Number texel_coordinate(typename M::Number scaled, int size) {
  using Number = typename M::Number;
  const Number low = M::broadcast(-kPadding), high = M::broadcast(static_cast<float>(size));
  Number texel = (scaled + 1.0f) * (size * 0.5f) - 0.5f;
  texel = texel < low ? low : texel;
  return texel > high ? high : texel;
}

// Index into a padded row or column of a lower texel from texel_coordinate; a NaN reads the padding.
PORTRAIT4D_HD int padded_index(float lower) {
  return lower >= -kPadding ? static_cast<int>(lower) + kPadding : 0;
}

// Weights of a plane's four texels (above left, above right, below left, below right), a third of the bilinear ones.
template <class Number>
PORTRAIT4D_HD void texel_weights(Number column_part, Number row_part, Number* weights) {
  const Number right = column_part / 3.0f, left = static_cast<float>(1.0 / 3) - right, above = 1.0f - row_part;
  weights[0] = above * left;
  weights[1] = above * right;
  weights[2] = row_part * left;
  weights[3] = row_part * right;
}

struct PlaneShape {
  int channels, height, width;  // of a plane without its padding
  float scale;                  // 2 / side of the cube

  PORTRAIT4D_HD int64_t row_stride() const { return width + 2 * kPadding; }
  PORTRAIT4D_HD int64_t plane_texels() const { return row_stride() * (height + 2 * kPadding); }
};

// Rows of the table of texels that a point reads, the first of each plane's four, and the twelve weights.
struct PointTexels {
  int64_t corner[kPlanes];
  float weights[kPlanes][kTexels];

  PORTRAIT4D_HD PointTexels(const PlaneShape& shape, const float* point) {
    float columns[3], rows[3], column_parts[3], row_parts[3];
    for (int axis = 0; axis < 3; ++axis) {
      const float scaled = point[axis] * shape.scale;
      const float column = texel_coordinate<ScalarMath>(scaled, shape.width);
      const float row = texel_coordinate<ScalarMath>(scaled, shape.height);
      columns[axis] = ::floorf(column);
      rows[axis] = ::floorf(row);
      column_parts[axis] = column - columns[axis];
      row_parts[axis] = row - rows[axis];
    }
    for (int plane = 0; plane < kPlanes; ++plane) {
      const int u = plane, v = (plane + 1) % 3;
      corner[plane] = plane * shape.plane_texels() + padded_index(rows[v]) * shape.row_stride() + padded_index(columns[u]);
      texel_weights(column_parts[u], row_parts[v], weights[plane]);
    }
  }

  // Table row of one of a plane's four texels.
  PORTRAIT4D_HD int64_t row(const PlaneShape& shape, int plane, int texel) const {
    return corner[plane] + (texel >> 1) * shape.row_stride() + (texel & 1);
  }
};

// ---- deformation ----------------------------------------------------------------------------------------------------

// A cubic grid of four channels, channels last, axes (x, y, z); outermost cell centres at `first` and `last`.
struct Grid {
  const float* values;
  int resolution;
  float first, last;
};

struct HeadPose {
  Grid fine;    // offsets x, y, z and squared distance to the mesh
  Grid coarse;  // smoothed offsets x, y, z, and nothing
  float threshold, falloff;

  PORTRAIT4D_HD bool is_identity() const { return fine.values == nullptr; }
};

// Trilinear sample with zeros outside, corners in PyTorch's order (its x is our z).
PORTRAIT4D_HD void sample_grid(const Grid& grid, const float* point, float* result) {
  const int size = grid.resolution;
  float lower[3], upper[3], position[3];
  int index[3];
  for (int channel = 0; channel < 4; ++channel) result[channel] = 0;
  for (int axis = 0; axis < 3; ++axis) {
    const float normalised = 2 * (point[axis] - grid.last) / (grid.last - grid.first) + 1;
    position[axis] = (normalised + 1) / 2 * (size - 1);
    if (!(position[axis] > -1 && position[axis] < size)) return;
    lower[axis] = ::floorf(position[axis]);
    upper[axis] = lower[axis] + 1;
    index[axis] = static_cast<int>(lower[axis]);
  }
  for (int corner = 0; corner < 8; ++corner) {
    const int step[3] = {corner >> 2, (corner >> 1) & 1, corner & 1};
    float share[3];
    bool inside = true;
    for (int axis = 0; axis < 3; ++axis) {
      share[axis] = step[axis] ? position[axis] - lower[axis] : upper[axis] - position[axis];
      const int cell = index[axis] + step[axis];
      inside = inside && cell >= 0 && cell < size;
    }
    if (!inside) continue;
    const float weight = share[2] * share[1] * share[0];
    const int x = index[0] + step[0], y = index[1] + step[1], z = index[2] + step[2];
    const float* cell = grid.values + 4 * ((static_cast<int64_t>(x) * size + y) * size + z);
    for (int channel = 0; channel < 4; ++channel) result[channel] += cell[channel] * weight;
  }
}

// Carries a point of the posed head's space to canonical space, in place.
PORTRAIT4D_HD void deform(const HeadPose& pose, float* point) {
  float offset[4], smooth[4] = {0, 0, 0, 0};
  sample_grid(pose.fine, point, offset);
  const float excess = offset[3] - pose.threshold;
  const float near = excess <= 0 ? 1.0f : ::expf(-pose.falloff * excess);
  if (near != 1) sample_grid(pose.coarse, point, smooth);
  for (int axis = 0; axis < 3; ++axis) point[axis] = point[axis] + near * offset[axis] + (1 - near) * smooth[axis];
}

// ---- marching and importance sampling -------------------------------------------------------------------------------

// Opacity of the interval between two samples.
template <class M>
PORTRAIT4D_HD typename M::Number opacity(
    typename M::Number density0, typename M::Number density1, typename M::Number t0, typename M::Number t1) {
  const typename M::Number density = M::softplus((density1 + density0) / 2.0f - 1.0f);
  return 1.0f - M::exp(-density * (t1 - t0));
}

// Depth of a ray from the sums over its intervals, within its distances even where it is empty (0 / 0).
PORTRAIT4D_HD float ray_depth(float weighted, float total, float first, float last) {
  const float depth = weighted / total;
  if (!(depth >= first)) return depth != depth ? last : first;
  return depth <= last ? depth : last;
}

struct RaySum {
  float depth, transmittance;
};

// (Running sums and products are kept in double precision, as PyTorch's are.)

// Turns opacities (count - 1) into weights in place, and sums them up. `t` holds `count` ascending distances.
PORTRAIT4D_HD RaySum march(int count, const float* t, float* opacities) {
  double through = 1;
  float total = 0, weighted = 0;
  for (int k = 0; k + 1 < count; ++k) {
    const float alpha = opacities[k], weight = alpha * static_cast<float>(through);
    through *= 1 - alpha + 1e-10f;
    total += weight;
    weighted += weight * ((t[k + 1] + t[k]) / 2);
    opacities[k] = weight;
  }
  return {ray_depth(weighted, total, t[0], t[count - 1]), 1 - total};
}

// NaN if either is, like torch.maximum.
PORTRAIT4D_HD float largest(float a, float b) { return a != a || a > b ? a : b; }

// Fills the cumulative distribution (count - 2) of importance samples from coarse weights (count - 1).
PORTRAIT4D_HD void cumulate(int count, const float* weights, float* cumulative) {
  float sum = 0, before = largest(weights[0], weights[1]);
  for (int k = 1; k + 2 < count; ++k) {
    const float after = largest(weights[k], weights[k + 1]);
    cumulative[k] = (before + after) / 2 + 0.01f + 1e-5f;
    sum += cumulative[k];
    before = after;
  }
  double running = 0;
  cumulative[0] = 0;
  for (int k = 1; k + 2 < count; ++k) {
    running += cumulative[k] / sum;
    cumulative[k] = static_cast<float>(running);
  }
}

// Distance at a quantile of the distribution from `cumulate`; `t` holds the coarse distances (count), `above` is the
// number of entries that are not greater than the quantile.
PORTRAIT4D_HD float distance_at(int count, const float* t, const float* cumulative, float quantile, int above) {
  const int entries = count - 2, low = above > 0 ? above - 1 : 0, high = above < entries ? above : entries - 1;
  float width = cumulative[high] - cumulative[low];
  width = width < 1e-5f ? 1.0f : width;
  const float start = (t[low] + t[low + 1]) / 2, end = (t[high] + t[high + 1]) / 2;
  return start + (quantile - cumulative[low]) / width * (end - start);
}

PORTRAIT4D_HD float importance_distance(int count, const float* t, const float* cumulative, float quantile) {
  int low = 0, above = count - 2;  // first entry that is greater
  while (low < above) {
    const int middle = (low + above) / 2;
    if (cumulative[middle] > quantile) above = middle;
    else low = middle + 1;
  }
  return distance_at(count, t, cumulative, quantile, above);
}

// Whether sample i at distance a comes before sample j at b: ascending, NaN last, equal ones in order of their index.
PORTRAIT4D_HD bool comes_before(float a, int i, float b, int j) {
  const bool a_nan = a != a, b_nan = b != b;
  if (a_nan || b_nan) return a_nan == b_nan ? i < j : b_nan;
  return a < b || (a == b && i < j);
}

// ---- gradient of marching -------------------------------------------------------------------------------------------

struct RayGradient {
  const float* weights;  // of the loss with respect to each interval's weight
  float depth, transmittance;
};

// What an interval's densities come to: softplus(raw), exp(-density step), sigmoid(raw).
struct Interval {
  float density, clear, slope;
};

struct ScalarIntervals {
  const float *densities, *t;

  PORTRAIT4D_HD Interval operator()(int k) const {
    const float raw = (densities[k + 1] + densities[k]) / 2 - 1, density = ScalarMath::softplus(raw);
    return {density, ::expf(-density * (t[k + 1] - t[k])), sigmoid(raw)};
  }
};

// Adds the gradients with respect to a ray's densities and distances (count each) to zeros. `through` (count - 1) is
// scratch. With weights w = alpha T and m = 1 - alpha + 1e-10: dL/d alpha_k = T_k (G_k - R_k), R_k = G_{k+1} alpha_{k+1}
// + m_{k+1} R_{k+1}. A ray without any weight gives no gradient to its densities through its depth.
template <class Intervals>
PORTRAIT4D_HD void march_backward(int count, const Intervals& intervals, const float* t, const RayGradient& gradient,
                                  float* through, float* to_densities, float* to_distances) {
  double passed = 1;
  float total = 0, weighted = 0;
  for (int k = 0; k + 1 < count; ++k) {
    const float alpha = 1 - intervals(k).clear;
    through[k] = static_cast<float>(passed);
    total += alpha * through[k];
    weighted += alpha * through[k] * ((t[k + 1] + t[k]) / 2);
    passed *= 1 - alpha + 1e-10f;
  }
  const float depth = weighted / total, first = t[0], last = t[count - 1];
  const bool free = depth >= first && depth <= last;
  const float to_depth = free ? gradient.depth / total : 0;
  if (!free) to_distances[depth < first ? 0 : count - 1] += gradient.depth;
  float rest = 0;
  for (int k = count - 2; k >= 0; --k) {
    const Interval interval = intervals(k);
    const float step = t[k + 1] - t[k], middle = (t[k + 1] + t[k]) / 2, alpha = 1 - interval.clear;
    float to_weight = gradient.weights[k] - gradient.transmittance;
    if (free) to_weight += to_depth * (middle - depth);
    const float to_alpha = through[k] * (to_weight - rest);
    rest = to_weight * alpha + (1 - alpha + 1e-10f) * rest;
    const float to_raw = to_alpha * interval.clear * step * interval.slope / 2;
    const float to_step = to_alpha * interval.clear * interval.density;
    const float to_middle = to_depth * (alpha * through[k]) / 2;
    to_densities[k] += to_raw;
    to_densities[k + 1] += to_raw;
    to_distances[k] += to_middle - to_step;
    to_distances[k + 1] += to_middle + to_step;
  }
}

PORTRAIT4D_HD void march_backward(int count, const float* densities, const float* t, const RayGradient& gradient,
                                  float* through, float* to_densities, float* to_distances) {
  march_backward(count, ScalarIntervals{densities, t}, t, gradient, through, to_densities, to_distances);
}

}  // namespace portrait4d
