// What the kernels of both devices take and do. All tensors are contiguous float32 unless said otherwise.
#pragma once

#include <cstdint>

#include "ray_math.h"

namespace portrait4d {

struct Decoder {  // hidden = softplus(W f + b); density = row . hidden + b; colour = 1.002 sigmoid(W hidden + b) - 0.001
  int hidden, outputs;
  const float *hidden_weight, *hidden_bias;    // (hidden, channels), (hidden)
  const float *density_weight, *density_bias;  // (hidden), (1)
  const float *colour_weight, *colour_bias;    // (outputs, hidden), (outputs)
};

struct RenderJob {
  PlaneShape shape;
  HeadPose pose;  // grids of the first picture
  Decoder decoder;
  int64_t batch, rays;
  int coarse, fine;                   // samples of the two passes
  const float* table;                 // (batch, planes, height + padding, width + padding, channels)
  const float *origins, *directions;  // (batch, rays, 3)
  const float* distances;             // (batch, coarse)
  const float* quantiles;             // (batch, rays or 1, fine)
  bool quantiles_per_ray;
  float* features;                         // (batch, rays, outputs)
  float *depth, *transmittance;            // (batch, rays)
  float *sample_distances, *sample_weights;  // (batch, rays, samples), (batch, rays, samples - 1), or null

  PORTRAIT4D_HD int samples() const { return coarse + fine; }
  PORTRAIT4D_HD int64_t table_texels() const { return kPlanes * shape.plane_texels(); }
};

struct FetchJob {
  PlaneShape shape;
  int64_t batch, points;
  const float* positions;  // (batch, points, 3)
  float* table;            // as above; read by the forward pass, added to by the backward pass
  float* features;         // (batch, points, channels); written by the forward pass, read by the backward pass
};

struct MarchJob {
  int64_t rays;
  int samples;
  const float *densities, *distances;  // (rays, samples)
  float* weights;                      // (rays, samples - 1); the backward pass reads gradients from these three
  float *depth, *transmittance;        // (rays)
  float *to_densities, *to_distances;  // (rays, samples) gradients, added to by the backward pass
  float* scratch;                      // (rays, samples) of the backward pass
};

struct NearestJob {
  int64_t batch, points, triangles;
  const float* positions;  // (batch, points, 3)
  const float* corners;    // (batch, triangles, 3 corners, 3)
  float* squared;          // (batch, points)
  int64_t* index;          // (batch, points)
};

struct NearestVertexJob {
  int64_t batch, points, vertices;
  const float *positions, *places;  // (batch, points, 3), (batch, vertices, 3)
  float* squared;                   // (batch, points)
  int64_t* index;                   // (batch, points)
};

struct RasterJob {
  int64_t pictures, size, triangles;
  bool perspective;
  const float* corners;    // (3 coordinates, 3 corners, triangles): NDC x leftwards, NDC y upwards, depth
  const int64_t* picture;  // (triangles) ascending
  const float* centres;    // (size) ascending pixel centres
  int64_t* nearest;        // (pictures, size, size) triangle, -1 where there is none
  float *weights, *depth;  // (pictures, size, size, 3) and (pictures, size, size), zeros where there is none
  uint64_t* scratch;       // (pictures, size, size) on a GPU
};

void render_cpu(const RenderJob& job);
void fetch_cpu(const FetchJob& job);
void fetch_backward_cpu(const FetchJob& job);
void march_cpu(const MarchJob& job);
void march_backward_cpu(const MarchJob& job);
void nearest_triangle_cpu(const NearestJob& job);
void rasterize_cpu(const RasterJob& job);

}  // namespace portrait4d

// Launchers for CUDA devices: enqueue on a stream and return a cudaError_t. Pointers in jobs are device pointers.
extern "C" {
int portrait4d_render(const portrait4d::RenderJob* job, void* stream);
int portrait4d_fetch(const portrait4d::FetchJob* job, void* stream);
int portrait4d_fetch_backward(const portrait4d::FetchJob* job, void* stream);
int portrait4d_march(const portrait4d::MarchJob* job, void* stream);
int portrait4d_march_backward(const portrait4d::MarchJob* job, void* stream);
int portrait4d_nearest_triangle(const portrait4d::NearestJob* job, void* stream);
int portrait4d_nearest_vertex(const portrait4d::NearestVertexJob* job, void* stream);
int portrait4d_rasterize(const portrait4d::RasterJob* job, void* stream);
}
