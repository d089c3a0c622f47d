// Registration of the kernels as torch.ops.portrait4d.*; fake and autograd kernels are in ops/native_kernels.py.
// Shapes are checked by the public functions in ops/, here only what would crash.
#include <ATen/ATen.h>
#include <torch/library.h>

#include <tuple>
#include <vector>

#include "kernels.h"

#ifdef PORTRAIT4D_CUDA
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#endif

namespace portrait4d {
namespace {

using at::Tensor;

Tensor ready(const Tensor& tensor) {
  TORCH_CHECK(tensor.scalar_type() == at::kFloat, "portrait4d: expected float32, got ", tensor.scalar_type());
  return tensor.contiguous();
}

float* floats(const Tensor& tensor) { return tensor.data_ptr<float>(); }

PlaneShape plane_shape(at::IntArrayRef table, double box_warp) {
  return {static_cast<int>(table[4]), static_cast<int>(table[2]) - 2 * kPadding,
          static_cast<int>(table[3]) - 2 * kPadding, static_cast<float>(2 / box_warp)};
}

// Runs a job by its kernel for the device of `where`.
template <class Job, class Launcher>
void run(const Tensor& where, const Job& job, void (*on_cpu)(const Job&), [[maybe_unused]] Launcher on_cuda) {
  if (where.is_cpu()) return on_cpu(job);
#ifdef PORTRAIT4D_CUDA
  const c10::cuda::CUDAGuard guard(where.device());
  C10_CUDA_CHECK(static_cast<cudaError_t>(on_cuda(&job, c10::cuda::getCurrentCUDAStream().stream())));
#else
  TORCH_CHECK(false, "portrait4d: built without CUDA, got a tensor on ", where.device());
#endif
}

#ifdef PORTRAIT4D_CUDA
#define ON_CUDA(launcher) launcher
#else
#define ON_CUDA(launcher) nullptr
#endif

Tensor fetch(const Tensor& table, const Tensor& points, double box_warp) {
  const Tensor texels = ready(table), positions = ready(points);
  Tensor features = at::empty({points.size(0), points.size(1), table.size(4)}, table.options());
  const FetchJob job{plane_shape(table.sizes(), box_warp), points.size(0), points.size(1), floats(positions),
                     floats(texels), floats(features)};
  run(table, job, fetch_cpu, ON_CUDA(portrait4d_fetch));
  return features;
}

Tensor fetch_backward(const Tensor& gradient, const Tensor& points, double box_warp, at::IntArrayRef table_sizes) {
  const Tensor features = ready(gradient), positions = ready(points);
  Tensor table = at::zeros(table_sizes, gradient.options());
  const FetchJob job{plane_shape(table_sizes, box_warp), points.size(0), points.size(1), floats(positions),
                     floats(table), floats(features)};
  run(gradient, job, fetch_backward_cpu, ON_CUDA(portrait4d_fetch_backward));
  return table;
}

std::tuple<Tensor, Tensor, Tensor> march_rays(const Tensor& densities, const Tensor& distances) {
  const Tensor raw = ready(densities), t = ready(distances);
  Tensor weights = at::empty({raw.size(0), raw.size(1) - 1}, raw.options());
  Tensor depth = at::empty({raw.size(0)}, raw.options()), transmittance = at::empty_like(depth);
  const MarchJob job{raw.size(0), static_cast<int>(raw.size(1)), floats(raw), floats(t), floats(weights),
                     floats(depth), floats(transmittance), nullptr, nullptr, nullptr};
  run(raw, job, march_cpu, ON_CUDA(portrait4d_march));
  return {weights, depth, transmittance};
}

std::tuple<Tensor, Tensor> march_rays_backward(const Tensor& to_weights, const Tensor& to_depth,
                                               const Tensor& to_transmittance, const Tensor& densities,
                                               const Tensor& distances) {
  const Tensor raw = ready(densities), t = ready(distances);
  const Tensor weights = ready(to_weights), depth = ready(to_depth), transmittance = ready(to_transmittance);
  Tensor to_densities = at::zeros_like(raw), to_distances = at::zeros_like(t), scratch = at::empty_like(raw);
  const MarchJob job{raw.size(0), static_cast<int>(raw.size(1)), floats(raw), floats(t), floats(weights),
                     floats(depth), floats(transmittance), floats(to_densities), floats(to_distances),
                     floats(scratch)};
  run(raw, job, march_backward_cpu, ON_CUDA(portrait4d_march_backward));
  return {to_densities, to_distances};
}

// decoder: hidden weight and bias, density weight and bias, colour weight and bias. grids: none, or fine and coarse, each
// (B, r, r, r, 4). grid_numbers: first and last cell centre of the fine, then of the coarse grid; threshold; fall-off.
// rays: origins, directions, coarse distances, quantiles.
std::vector<Tensor> render(const Tensor& table, double box_warp, at::TensorList decoder, at::TensorList grids,
                           at::ArrayRef<double> grid_numbers, at::TensorList rays, bool keep_samples) {
  const Tensor &origins = rays[0], &directions = rays[1], &distances = rays[2], &quantiles = rays[3];
  std::vector<Tensor> kept;  // what the job points to
  const auto pointer = [&kept](const Tensor& tensor) { return floats(kept.emplace_back(ready(tensor))); };
  const int64_t batch = origins.size(0), count = origins.size(1);
  RenderJob job{};
  job.shape = plane_shape(table.sizes(), box_warp);
  job.batch = batch;
  job.rays = count;
  job.coarse = static_cast<int>(distances.size(1));
  job.fine = static_cast<int>(quantiles.size(2));
  job.decoder = {static_cast<int>(decoder[0].size(0)), static_cast<int>(decoder[4].size(0)),
                 pointer(decoder[0]), pointer(decoder[1]), pointer(decoder[2]),
                 pointer(decoder[3]), pointer(decoder[4]), pointer(decoder[5])};
  if (!grids.empty()) {
    const auto number = [&](int k) { return static_cast<float>(grid_numbers[k]); };
    job.pose = {{pointer(grids[0]), static_cast<int>(grids[0].size(1)), number(0), number(1)},
                {pointer(grids[1]), static_cast<int>(grids[1].size(1)), number(2), number(3)},
                number(4), number(5)};
  }
  job.table = pointer(table);
  job.origins = pointer(origins);
  job.directions = pointer(directions);
  job.distances = pointer(distances);
  job.quantiles = pointer(quantiles);
  job.quantiles_per_ray = quantiles.size(1) == count && count > 1;
  Tensor features = at::empty({batch, count, job.decoder.outputs}, table.options());
  Tensor depth = at::empty({batch, count}, table.options()), transmittance = at::empty_like(depth);
  const int64_t samples = keep_samples ? job.samples() : 0;
  Tensor sample_distances = at::empty({batch, count, samples}, table.options());
  Tensor weights = at::empty({batch, count, keep_samples ? samples - 1 : 0}, table.options());
  job.features = floats(features);
  job.depth = floats(depth);
  job.transmittance = floats(transmittance);
  job.sample_distances = keep_samples ? floats(sample_distances) : nullptr;
  job.sample_weights = keep_samples ? floats(weights) : nullptr;
  run(table, job, render_cpu, ON_CUDA(portrait4d_render));
  return {features, depth, transmittance, sample_distances, weights};
}

std::tuple<Tensor, Tensor> nearest(const Tensor& points, const Tensor& triangles) {
  const Tensor positions = ready(points), corners = ready(triangles);
  Tensor squared = at::empty({points.size(0), points.size(1)}, points.options());
  Tensor index = at::empty({points.size(0), points.size(1)}, points.options().dtype(at::kLong));
  const NearestJob job{points.size(0), points.size(1), triangles.size(1), floats(positions), floats(corners),
                       floats(squared), index.data_ptr<int64_t>()};
  run(points, job, nearest_triangle_cpu, ON_CUDA(portrait4d_nearest_triangle));
  return {squared, index};
}

#ifdef PORTRAIT4D_CUDA
std::tuple<Tensor, Tensor> nearest_vertex(const Tensor& points, const Tensor& vertices) {
  const Tensor positions = ready(points), places = ready(vertices);
  Tensor squared = at::empty({points.size(0), points.size(1)}, points.options());
  Tensor index = at::empty({points.size(0), points.size(1)}, points.options().dtype(at::kLong));
  const NearestVertexJob job{points.size(0), points.size(1), vertices.size(1), floats(positions), floats(places),
                             floats(squared), index.data_ptr<int64_t>()};
  const c10::cuda::CUDAGuard guard(points.device());
  C10_CUDA_CHECK(static_cast<cudaError_t>(
      portrait4d_nearest_vertex(&job, c10::cuda::getCurrentCUDAStream().stream())));
  return {squared, index};
}
#endif

std::tuple<Tensor, Tensor, Tensor> rasterize(const Tensor& corners, const Tensor& picture, const Tensor& centres,
                                             int64_t pictures, bool perspective) {
  const Tensor coordinates = ready(corners), positions = ready(centres), owners = picture.contiguous();
  const int64_t size = centres.size(0);
  Tensor nearest_face = at::empty({pictures, size, size}, owners.options());
  Tensor weights = at::empty({pictures, size, size, 3}, coordinates.options());
  Tensor depth = at::empty({pictures, size, size}, coordinates.options());
  Tensor scratch;
  RasterJob job{pictures, size, corners.size(2), perspective, floats(coordinates), owners.data_ptr<int64_t>(),
                floats(positions), nearest_face.data_ptr<int64_t>(), floats(weights), floats(depth), nullptr};
  if (!corners.is_cpu()) {
    scratch = at::empty_like(nearest_face);
    job.scratch = reinterpret_cast<uint64_t*>(scratch.data_ptr<int64_t>());
  }
  run(corners, job, rasterize_cpu, ON_CUDA(portrait4d_rasterize));
  return {nearest_face, weights, depth};
}

TORCH_LIBRARY(portrait4d, library) {
  library.def("triplane_fetch(Tensor table, Tensor points, float box_warp) -> Tensor");
  library.def("triplane_fetch_backward(Tensor gradient, Tensor points, float box_warp, int[] table_sizes) -> Tensor");
  library.def("march_rays(Tensor densities, Tensor distances) -> (Tensor, Tensor, Tensor)");
  library.def(
      "march_rays_backward(Tensor to_weights, Tensor to_depth, Tensor to_transmittance, Tensor densities, "
      "Tensor distances) -> (Tensor, Tensor)");
  library.def(
      "triplane_render(Tensor table, float box_warp, Tensor[] decoder, Tensor[] grids, float[] grid_numbers, "
      "Tensor[] rays, bool keep_samples) -> Tensor[]");
  library.def("nearest_triangle(Tensor points, Tensor triangles) -> (Tensor, Tensor)");
  library.def("nearest_vertex(Tensor points, Tensor vertices) -> (Tensor, Tensor)");  // GPUs only
  library.def(
      "rasterize(Tensor corners, Tensor picture, Tensor centres, int pictures, bool perspective) "
      "-> (Tensor, Tensor, Tensor)");
}

void register_kernels(torch::Library& library) {
  library.impl("triplane_fetch", fetch);
  library.impl("triplane_fetch_backward", fetch_backward);
  library.impl("march_rays", march_rays);
  library.impl("march_rays_backward", march_rays_backward);
  library.impl("triplane_render", render);
  library.impl("nearest_triangle", nearest);
  library.impl("rasterize", rasterize);
}

TORCH_LIBRARY_IMPL(portrait4d, CPU, library) { register_kernels(library); }
#ifdef PORTRAIT4D_CUDA
TORCH_LIBRARY_IMPL(portrait4d, CUDA, library) {
  register_kernels(library);
  library.impl("nearest_vertex", nearest_vertex);
}
#endif

}  // namespace
}  // namespace portrait4d
