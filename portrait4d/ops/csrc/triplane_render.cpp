// Fused rendering on a CPU: a ray at a time, whatever belongs to its samples stays in the core's caches.
//
// The decoder's first layer is linear, as is the lookup, so the layer is applied to the planes' texels, of which there
// are fewer than samples; looking up its results gives the hidden units before their softplus.
#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <memory>
#include <numeric>
#include <vector>

#include "kernels.h"
#include "simd.h"

namespace portrait4d {
namespace {

#if defined(__AVX512F__)
constexpr int kWideRows = 4, kWideVectors = 4, kNarrowRows = 8, kNarrowVectors = 2;  // more rows spill registers
#else
constexpr int kWideRows = 2, kWideVectors = 2, kNarrowRows = 4, kNarrowVectors = 1;
#endif

constexpr int kTileSide = 8;  // pixels; neighbouring rays read the same texels
constexpr int64_t kRaysPerTask = kTileSide * kTileSide;
constexpr int64_t kTexelsPerTask = 240;

int padded(int count) { return (count + kLanes - 1) / kLanes * kLanes; }

// A matrix (outputs, inputs) and its bias (or none), transposed to (inputs, padded outputs) for products with rows of inputs.
struct Layer {
  int inputs, width;
  std::vector<float> weights, bias;

  Layer(int outputs, int input_count, const float* weight, const float* bias_values)
      : inputs(input_count), width(padded(outputs)), weights(static_cast<size_t>(width) * inputs), bias(width) {
    for (int output = 0; output < outputs; ++output) {
      bias[output] = bias_values == nullptr ? 0 : bias_values[output];
      for (int input = 0; input < inputs; ++input)
        weights[static_cast<size_t>(input) * width + output] = weight[static_cast<int64_t>(output) * inputs + input];
    }
  }
};

struct Identity {
  static Vector apply(Vector x) { return x; }
};

struct ColourSigmoid {
  static Vector apply(Vector x) { return colour_range(VectorMath::sigmoid(x)); }
};

// One register block of Activation(rows W + b), from column `column` on.
template <int ROWS, int VECTORS, class Activation>
inline void multiply_block(const Layer& layer, const float* const* rows, int column, float* const* results) {
  Vector sums[ROWS][VECTORS];
  for (int row = 0; row < ROWS; ++row)
    for (int v = 0; v < VECTORS; ++v) sums[row][v] = load(&layer.bias[column + v * kLanes]);
  const float* weight = &layer.weights[column];
  for (int input = 0; input < layer.inputs; ++input, weight += layer.width) {
    Vector columns[VECTORS];
    for (int v = 0; v < VECTORS; ++v) columns[v] = load(weight + v * kLanes);
    for (int row = 0; row < ROWS; ++row) {
      const Vector value = broadcast(rows[row][input]);
      for (int v = 0; v < VECTORS; ++v) sums[row][v] = fused(value, columns[v], sums[row][v]);
    }
  }
  // Stored first: an activation in this loop would keep the compiler from holding the sums in registers above.
  for (int row = 0; row < ROWS; ++row)
    for (int v = 0; v < VECTORS; ++v) store(results[row] + column + v * kLanes, sums[row][v]);
  for (int row = 0; row < ROWS; ++row)
    for (int v = 0; v < VECTORS; ++v) {
      float* values = results[row] + column + v * kLanes;
      store(values, Activation::apply(load(values)));
    }
}

template <int ROWS, int VECTORS, class Activation>
inline int multiply_blocks(const Layer& layer, const float* const* rows, int first, int count, float* const* results) {
  for (; first + ROWS <= count; first += ROWS) {
    int column = 0;
    for (; column + VECTORS * kLanes <= layer.width; column += VECTORS * kLanes)
      multiply_block<ROWS, VECTORS, Activation>(layer, rows + first, column, results + first);
    for (; column < layer.width; column += kLanes)
      multiply_block<ROWS, 1, Activation>(layer, rows + first, column, results + first);
  }
  return first;
}

// results[r] = Activation(rows[r] W + b) for `count` rows, each result padded to the layer's width.
template <int ROWS, int VECTORS, class Activation>
void multiply(const Layer& layer, const float* const* rows, int count, float* const* results) {
  const int done = multiply_blocks<ROWS, VECTORS, Activation>(layer, rows, 0, count, results);
  multiply_blocks<1, VECTORS, Activation>(layer, rows, done, count, results);
}

// The decoder laid out for this file. The hidden layer's bias is added after the lookup.
struct Network {
  Layer hidden, colour;
  std::vector<float> hidden_bias, density;  // padded
  float density_bias;

  Network(const Decoder& decoder, int channels)
      : hidden(decoder.hidden, channels, decoder.hidden_weight, nullptr),
        colour(decoder.outputs, decoder.hidden, decoder.colour_weight, decoder.colour_bias),
        hidden_bias(hidden.width),
        density(hidden.width),
        density_bias(decoder.density_bias[0]) {
    std::copy_n(decoder.hidden_bias, decoder.hidden, hidden_bias.begin());
    std::copy_n(decoder.density_weight, decoder.hidden, density.begin());
  }
};

// Applies the hidden layer to all texels of a picture.
void project_planes(const RenderJob& job, const Layer& layer, const float* table, float* result) {
  at::parallel_for(0, job.table_texels(), kTexelsPerTask, [&](int64_t begin, int64_t end) {
    const float* inputs[kTexelsPerTask];
    float* outputs[kTexelsPerTask];
    for (int64_t start = begin; start < end; start += kTexelsPerTask) {
      const int count = static_cast<int>(std::min(kTexelsPerTask, end - start));
      for (int k = 0; k < count; ++k) {
        inputs[k] = table + (start + k) * job.shape.channels;
        outputs[k] = result + (start + k) * layer.width;
      }
      multiply<kWideRows, kWideVectors, Identity>(layer, inputs, count, outputs);
    }
  });
}

// Texels of up to sixteen points: rows of the table and weights.
struct BlockTexels {
  int64_t corner[kPlanes][kLanes];
  float weights[kPlanes][kTexels][kLanes];
};

// Renders rays of one picture, one after the other, in buffers of its own.
class RayRenderer {
 public:
  // `texels` are the projected planes of `picture`.
  RayRenderer(const RenderJob& job, const Network& network, const float* texels, int64_t picture)
      : job_(job),
        network_(network),
        texels_(texels),
        picture_(picture),
        pose_(job.pose),
        hidden_(static_cast<size_t>(job.samples()) * network.hidden.width),
        colours_(static_cast<size_t>(job.samples()) * network.colour.width),
        distances_(job.samples()),
        densities_(job.samples()),
        sorted_distances_(job.samples() + kLanes),
        sorted_densities_(job.samples() + kLanes),
        weights_(job.samples() + kLanes),
        cumulative_(job.coarse),
        order_(job.samples()),
        merged_(job.samples()),
        inputs_(job.samples()),
        outputs_(job.samples()) {
    if (pose_.is_identity()) return;
    for (Grid* grid : {&pose_.fine, &pose_.coarse})
      grid->values += picture * 4 * grid->resolution * grid->resolution * grid->resolution;
  }

  void render(int64_t ray) {
    const int64_t number = picture_ * job_.rays + ray;
    std::copy_n(job_.origins + 3 * number, 3, origin_);
    std::copy_n(job_.directions + 3 * number, 3, direction_);
    const int coarse = job_.coarse, samples = job_.samples();
    std::copy_n(job_.distances + picture_ * coarse, coarse, distances_.begin());
    evaluate(0, coarse);
    find_opacities(coarse, distances_.data(), densities_.data());
    march(coarse, distances_.data(), weights_.data());
    cumulate(coarse, weights_.data(), cumulative_.data());
    const float* quantiles = job_.quantiles + (job_.quantiles_per_ray ? number : picture_) * job_.fine;
    for (int k = 0; k < job_.fine; ++k)
      distances_[coarse + k] = importance_distance(coarse, distances_.data(), cumulative_.data(), quantiles[k]);
    evaluate(coarse, samples);
    sort_samples();
    find_opacities(samples, sorted_distances_.data(), sorted_densities_.data());
    const RaySum sum = march(samples, sorted_distances_.data(), weights_.data());
    job_.depth[number] = sum.depth;
    job_.transmittance[number] = sum.transmittance;
    accumulate_colours(job_.features + number * job_.decoder.outputs);
    if (job_.sample_distances != nullptr) {
      std::copy_n(sorted_distances_.begin(), samples, job_.sample_distances + number * samples);
      std::copy_n(weights_.begin(), samples - 1, job_.sample_weights + number * (samples - 1));
    }
  }

 private:
  // Computes hidden units and raw densities of samples first .. last - 1.
  void evaluate(int first, int last) {
    const int width = network_.hidden.width;
    BlockTexels texels;
    for (int start = first; start < last; start += kLanes) {
      const int count = std::min(kLanes, last - start);
      locate(start, count, texels);
      for (int k = 0; k < count; ++k) {
        float* hidden = &hidden_[static_cast<size_t>(start + k) * width];
        Vector total = {};
        int unit = 0;
        for (; unit + kWideVectors * kLanes <= width; unit += kWideVectors * kLanes)
          total += look_up<kWideVectors>(texels, k, unit, hidden);
        for (; unit < width; unit += kLanes) total += look_up<1>(texels, k, unit, hidden);
        densities_[start + k] = sum(total) + network_.density_bias;
      }
    }
  }

  // Looks up hidden units from `unit` on at point k of a block; returns their part in the density.
  template <int VECTORS>
  Vector look_up(const BlockTexels& texels, int k, int unit, float* hidden) const {
    const int width = network_.hidden.width;
    const int64_t below = job_.shape.row_stride() * width;
    Vector units[VECTORS], density = {};
    for (int v = 0; v < VECTORS; ++v) units[v] = load(&network_.hidden_bias[unit + v * kLanes]);
    for (int plane = 0; plane < kPlanes; ++plane) {
      const float* corner = texels_ + texels.corner[plane][k] * width + unit;
      for (int texel = 0; texel < kTexels; ++texel) {
        const float* source = corner + (texel >> 1) * below + (texel & 1) * width;
        const Vector weight = broadcast(texels.weights[plane][texel][k]);
        for (int v = 0; v < VECTORS; ++v) units[v] = fused(weight, load(source + v * kLanes), units[v]);
      }
    }
    for (int v = 0; v < VECTORS; ++v) {
      units[v] = VectorMath::softplus(units[v]);
      store(hidden + unit + v * kLanes, units[v]);
      density = fused(units[v], load(&network_.density[unit + v * kLanes]), density);
    }
    return density;
  }

  void locate(int start, int count, BlockTexels& texels) const {
    const Vector distance = load_first(&distances_[start], count);
    Vector point[3];
    for (int axis = 0; axis < 3; ++axis) point[axis] = origin_[axis] + distance * direction_[axis];
    if (!pose_.is_identity()) {
      float points[3][kLanes];
      for (int axis = 0; axis < 3; ++axis) store(points[axis], point[axis]);
      for (int k = 0; k < count; ++k) {
        float moved[3] = {points[0][k], points[1][k], points[2][k]};
        deform(pose_, moved);
        for (int axis = 0; axis < 3; ++axis) points[axis][k] = moved[axis];
      }
      for (int axis = 0; axis < 3; ++axis) point[axis] = load(points[axis]);
    }
    float columns[3][kLanes], rows[3][kLanes];
    Vector column_parts[3], row_parts[3];
    for (int axis = 0; axis < 3; ++axis) {
      const Vector scaled = point[axis] * job_.shape.scale;
      const Vector column = texel_coordinate<VectorMath>(scaled, job_.shape.width);
      const Vector row = texel_coordinate<VectorMath>(scaled, job_.shape.height);
      const Vector left = VectorMath::floor(column), above = VectorMath::floor(row);
      store(columns[axis], left);
      store(rows[axis], above);
      column_parts[axis] = column - left;
      row_parts[axis] = row - above;
    }
    for (int plane = 0; plane < kPlanes; ++plane) {
      const int u = plane, v = (plane + 1) % 3;
      Vector weights[kTexels];
      texel_weights(column_parts[u], row_parts[v], weights);
      for (int texel = 0; texel < kTexels; ++texel) store(texels.weights[plane][texel], weights[texel]);
      const int64_t start_texel = plane * job_.shape.plane_texels(), stride = job_.shape.row_stride();
      for (int k = 0; k < kLanes; ++k)
        texels.corner[plane][k] = start_texel + padded_index(rows[v][k]) * stride + padded_index(columns[u][k]);
    }
  }

  void find_opacities(int count, const float* t, const float* densities) {
    for (int k = 0; k + 1 < count; k += kLanes) {
      const int lanes = std::min(kLanes, count - 1 - k);
      const Vector result = opacity<VectorMath>(load_first(densities + k, lanes), load_first(densities + k + 1, lanes),
                                                load_first(t + k, lanes), load_first(t + k + 1, lanes));
      store(&weights_[k], result);
    }
  }

  void sort_samples() {
    const auto before = [this](int i, int j) { return comes_before(distances_[i], i, distances_[j], j); };
    std::iota(order_.begin(), order_.end(), 0);
    const auto middle = order_.begin() + job_.coarse;
    if (!std::is_sorted(middle, order_.end(), before)) std::sort(middle, order_.end(), before);
    std::merge(order_.begin(), middle, middle, order_.end(), merged_.begin(), before);
    for (size_t k = 0; k < merged_.size(); ++k) {
      sorted_distances_[k] = distances_[merged_[k]];
      sorted_densities_[k] = densities_[merged_[k]];
    }
  }

  // Sums up the colours of the samples, each weighted by half of the intervals on both its sides.
  void accumulate_colours(float* result) {
    const int samples = job_.samples(), width = network_.colour.width, outputs = job_.decoder.outputs;
    int visible = 0;
    for (int k = 0; k < samples; ++k) {
      const float weight = ((k > 0 ? weights_[k - 1] : 0) + (k + 1 < samples ? weights_[k] : 0)) / 2;
      if (weight < kNegligibleWeight) continue;
      inputs_[visible] = &hidden_[static_cast<size_t>(merged_[k]) * network_.hidden.width];
      outputs_[visible] = &colours_[static_cast<size_t>(visible) * width];
      sorted_densities_[visible++] = weight;  // densities have served
    }
    multiply<kNarrowRows, kNarrowVectors, ColourSigmoid>(network_.colour, inputs_.data(), visible, outputs_.data());
    for (int column = 0; column < outputs; column += kLanes) {
      Vector total = {};
      for (int k = 0; k < visible; ++k)
        total = fused(broadcast(sorted_densities_[k]), load(outputs_[k] + column), total);
      float values[kLanes];
      store(values, total);
      std::copy_n(values, std::min(kLanes, outputs - column), result + column);
    }
  }

  const RenderJob& job_;
  const Network& network_;
  const float* texels_;
  const int64_t picture_;
  HeadPose pose_;
  float origin_[3], direction_[3];
  std::vector<float> hidden_, colours_, distances_, densities_;  // coarse samples, then fine ones
  std::vector<float> sorted_distances_, sorted_densities_, weights_, cumulative_;
  std::vector<int> order_, merged_;
  std::vector<const float*> inputs_;
  std::vector<float*> outputs_;
};

// Order of rays: square pictures by tiles, others as they come.
struct Tiles {
  int64_t width, height, tile_width, tile_height;

  explicit Tiles(int64_t rays) : width(std::llround(std::sqrt(static_cast<double>(rays)))) {
    const bool square = width * width == rays;
    if (!square) width = rays;
    height = square ? width : 1;
    tile_width = square ? kTileSide : kRaysPerTask;
    tile_height = square ? kTileSide : 1;
  }

  int64_t columns() const { return (width + tile_width - 1) / tile_width; }
  int64_t count() const { return columns() * ((height + tile_height - 1) / tile_height); }

  template <class Visit>
  void visit(int64_t tile, const Visit& visit_ray) const {
    const int64_t left = tile % columns() * tile_width, top = tile / columns() * tile_height;
    for (int64_t y = top; y < std::min(height, top + tile_height); ++y)
      for (int64_t x = left; x < std::min(width, left + tile_width); ++x) visit_ray(y * width + x);
  }
};

}  // namespace

void render_cpu(const RenderJob& job) {
  if (job.batch * job.rays == 0) return;
  const Network network(job.decoder, job.shape.channels);
  const Tiles tiles(job.rays);
  const std::unique_ptr<float[]> texels(new float[job.table_texels() * network.hidden.width]);
  for (int64_t picture = 0; picture < job.batch; ++picture) {
    const float* table = job.table + picture * job.table_texels() * job.shape.channels;
    project_planes(job, network.hidden, table, texels.get());
    std::atomic<int64_t> next{0};  // rays differ in cost, so threads take the next few when they are done
    at::parallel_for(0, std::min<int64_t>(tiles.count(), at::get_num_threads()), 1, [&](int64_t, int64_t) {
      RayRenderer renderer(job, network, texels.get(), picture);
      for (int64_t tile = next++; tile < tiles.count(); tile = next++)
        tiles.visit(tile, [&](int64_t ray) { renderer.render(ray); });
    });
  }
}

}  // namespace portrait4d
