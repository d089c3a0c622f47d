// Arithmetic of triangles, one function for CPU and GPU: distance to a point (deformation.md section 1), coverage of a
// pixel (cameras-and-rasterisation.md section 4). Everything is rounded after every operation, see ray_math.h.
#pragma once

#include "ray_math.h"

namespace portrait4d {

constexpr float kMinArea = 5e-3f;  // below, a triangle counts as its edges
constexpr int kEdges = 3;

// Corners of the edges, in the order v0 to v1, v0 to v2, v1 to v2.
PORTRAIT4D_HD constexpr int edge_start(int edge) { return edge == 2 ? 1 : 0; }
PORTRAIT4D_HD constexpr int edge_end(int edge) { return edge == 0 ? 1 : 2; }

template <class Number>
PORTRAIT4D_HD Number dot(const Number* a, const Number* b) {
  return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

// Squared distance of a point to a segment from `start` along `edge`; `length` is edge . edge.
template <class M>
PORTRAIT4D_HD typename M::Number edge_squared_distance(
    const typename M::Number* point, const typename M::Number* start, const typename M::Number* edge,
    typename M::Number length) {
  using Number = typename M::Number;
  const Number zero = M::broadcast(0), one = M::broadcast(1);
  Number away[3];
  for (int axis = 0; axis < 3; ++axis) away[axis] = point[axis] - start[axis];
  Number position = dot(edge, away) / length;
  position = position < zero ? zero : position;
  position = position > one ? one : position;
  position = length < M::broadcast(1e-8f) ? zero : position;  // a degenerate edge is a point
  for (int axis = 0; axis < 3; ++axis) away[axis] = point[axis] - (start[axis] + position * edge[axis]);
  return dot(away, away);
}

// Normal (v2 - v0) x (v1 - v0) of a triangle (3 corners, 3), and its length.
PORTRAIT4D_HD float triangle_normal(const float* corners, float* normal) {
  float a[3], b[3];
  for (int axis = 0; axis < 3; ++axis) {
    a[axis] = corners[6 + axis] - corners[axis];
    b[axis] = corners[3 + axis] - corners[axis];
  }
  for (int axis = 0; axis < 3; ++axis) {
    const int next = (axis + 1) % 3, last = (axis + 2) % 3;
    normal[axis] = a[next] * b[last] - a[last] * b[next];
  }
  return ::sqrtf(dot(normal, normal));
}

// Squared distance to the plane of a triangle of at least kMinArea where the foot lies inside, else `to_edges`.
PORTRAIT4D_HD float face_squared_distance(const float* point, const float* corners, float to_edges) {
  float normal[3], a[3], b[3], w[3], to_corner[3];
  const float length = triangle_normal(corners, normal);
  if (!(length / 2 >= kMinArea)) return to_edges;
  for (int axis = 0; axis < 3; ++axis) {
    normal[axis] = normal[axis] / (length + 1e-8f);
    to_corner[axis] = corners[axis] - point[axis];
  }
  const float t = dot(to_corner, normal);
  for (int axis = 0; axis < 3; ++axis) {
    a[axis] = corners[3 + axis] - corners[axis];
    b[axis] = corners[6 + axis] - corners[axis];
    w[axis] = point[axis] + t * normal[axis] - corners[axis];
  }
  const float aa = dot(a, a), ab = dot(a, b), bb = dot(b, b), aw = dot(a, w), bw = dot(b, w);
  const float denominator = aa * bb - ab * ab + 1e-8f;
  const float w1 = (bb * aw - ab * bw) / denominator, w2 = (aa * bw - ab * aw) / denominator, w0 = 1 - w1 - w2;
  const bool inside = w0 >= 0 && w0 <= 1 && w1 >= 0 && w1 <= 1 && w2 >= 0 && w2 <= 1;
  return inside ? t * t : to_edges;
}

// Squared distance of a point to one triangle (3 corners, 3).
PORTRAIT4D_HD float triangle_squared_distance(const float* point, const float* corners) {
  float best = 0;
  for (int number = 0; number < kEdges; ++number) {
    const float *start = corners + 3 * edge_start(number), *end = corners + 3 * edge_end(number);
    const float edge[3] = {end[0] - start[0], end[1] - start[1], end[2] - start[2]};
    const float squared = edge_squared_distance<ScalarMath>(point, start, edge, dot(edge, edge));
    best = number == 0 || squared < best ? squared : best;
  }
  return face_squared_distance(point, corners, best);
}

// Twice the signed area of the triangle p, u, w.
template <class A, class B>
PORTRAIT4D_HD A signed_area(A px, A py, B ux, B uy, B wx, B wy) {
  return (px - ux) * (wy - uy) - (py - uy) * (wx - ux);
}

struct Corners {
  float x[3], y[3], z[3];

  // Triangle `number` of (3 coordinates, 3 corners, count).
  PORTRAIT4D_HD Corners(const float* corners, int64_t count, int64_t number) {
    for (int k = 0; k < 3; ++k) {
      x[k] = corners[k * count + number];
      y[k] = corners[(3 + k) * count + number];
      z[k] = corners[(6 + k) * count + number];
    }
  }
};

// Barycentrics of a point of the picture in a triangle; returns its depth.
template <class M>
PORTRAIT4D_HD typename M::Number shade(
    const Corners& v, typename M::Number x, typename M::Number y, bool perspective, typename M::Number* weights) {
  using Number = typename M::Number;
  const float area = signed_area(v.x[2], v.y[2], v.x[0], v.y[0], v.x[1], v.y[1]) + 1e-8f;
  for (int k = 0; k < 3; ++k) {
    const int a = (k + 1) % 3, b = (k + 2) % 3;
    weights[k] = signed_area(x, y, v.x[a], v.y[a], v.x[b], v.y[b]) / area;
  }
  if (perspective) {
    weights[0] = weights[0] * v.z[1] * v.z[2];
    weights[1] = weights[1] * v.z[0] * v.z[2];
    weights[2] = weights[2] * v.z[0] * v.z[1];
    const Number least = M::broadcast(1e-8f);
    Number total = weights[0] + weights[1] + weights[2];
    total = total < least ? least : total;
    for (int k = 0; k < 3; ++k) weights[k] = weights[k] / total;
  }
  return weights[0] * v.z[0] + weights[1] * v.z[1] + weights[2] * v.z[2];
}

// First index of ascending `centres` that is not below `position`; above it if `beyond`.
PORTRAIT4D_HD int64_t first_centre(const float* centres, int64_t size, float position, bool beyond) {
  int64_t low = 0, high = size;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (centres[middle] < position || (beyond && centres[middle] == position)) low = middle + 1;
    else high = middle;
  }
  return low;
}

// Half-open ranges of columns and rows whose centres lie in a triangle's closed bounding box.
struct PixelBox {
  int64_t first_column, last_column, first_row, last_row;

  PORTRAIT4D_HD PixelBox(const Corners& v, const float* centres, int64_t size) {
    find(v.x, centres, size, first_column, last_column);
    find(v.y, centres, size, first_row, last_row);
  }

 private:
  static PORTRAIT4D_HD void find(
      const float* positions, const float* centres, int64_t size, int64_t& first, int64_t& last) {
    float low = -positions[0], high = low;
    for (int k = 1; k < 3; ++k) {
      low = -positions[k] < low ? -positions[k] : low;
      high = -positions[k] > high ? -positions[k] : high;
    }
    first = first_centre(centres, size, low, false);
    last = first_centre(centres, size, high, true);
  }
};

}  // namespace portrait4d
