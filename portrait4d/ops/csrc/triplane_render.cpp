// Fused rendering on a CPU: sixteen rays at a time, whatever belongs to their samples stays in the core's caches.
#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <memory>
#include <numeric>
#include <optional>
#include <vector>

#include "head_pose_simd.h"
#include "kernels.h"
#include "projected_planes.h"
#include "ray_packets.h"
#include "simd.h"

namespace portrait4d {
namespace {

constexpr int kRaysAtOnce = 2 * kPacketSide;

// Texels of sixteen points: rows of the table and weights.
struct PacketTexels {
  int32_t corner[kPlanes][kLanes];
  float weights[kPlanes][kTexels][kLanes];
};

Integers padded_indices(Vector lower) {
  return truncated(lower >= static_cast<float>(-kPadding) ? lower + static_cast<float>(kPadding) : Vector{});
}

// Renders packets of sixteen neighbouring rays of one picture in buffers of its own. A lane is a ray: unless said
// otherwise, buffers hold sixteen numbers for each sample. Lanes without a ray repeat the first.
class PacketRenderer {
 public:
  // `texels` are the projected planes of `picture`; no `deformer` is the identity.
  PacketRenderer(const RenderJob& job, const Network& network, const Deformer* deformer, const float* texels,
                 int64_t picture)
      : job_(job),
        network_(network),
        deformer_(deformer),
        texels_(texels),
        picture_(picture),
        coarse_distances_(job.distances + picture * job.coarse),
        hidden_(static_cast<size_t>(job.samples()) * kLanes * network.hidden.width),
        distances_(static_cast<size_t>(job.samples()) * kLanes),
        densities_(distances_.size()),
        sorted_distances_(distances_.size()),
        sorted_densities_(distances_.size()),
        weights_(distances_.size()),
        cumulative_(static_cast<size_t>(job.coarse) * kLanes),
        texels_of_(job.samples()),
        sorted_(distances_.size()),
        ray_cumulative_(job.coarse),
        ray_fine_(job.fine),
        order_(job.samples()),
        ray_sorted_(job.samples()),
        features_(static_cast<size_t>(kLanes) * network.colour.width),
        colours_(static_cast<size_t>(kNarrowRows) * network.colour.width) {}

  void render(const int64_t* rays, int count) {
    const int coarse = job_.coarse, samples = job_.samples();
    start(rays, count);
    for (int k = 0; k < coarse; ++k) store(at(distances_, k), broadcast(coarse_distances_[k]));
    evaluate(0, coarse);
    march(coarse, distances_.data(), densities_.data());
    cumulate();
    for (int lane = 0; lane < count; ++lane) draw_fine_distances(lane);
    evaluate(coarse, samples);
    for (int lane = 0; lane < count; ++lane) sort_samples(lane);
    float depth[kLanes], transmittance[kLanes];
    const PacketSum sum = march(samples, sorted_distances_.data(), sorted_densities_.data());
    store(depth, sum.depth);
    store(transmittance, sum.transmittance);
    accumulate_colours();
    for (int lane = 0; lane < count; ++lane) {
      job_.depth[numbers_[lane]] = depth[lane];
      job_.transmittance[numbers_[lane]] = transmittance[lane];
      finish(lane);
    }
  }

 private:
  struct PacketSum {
    Vector depth, transmittance;
  };

  static float* at(std::vector<float>& buffer, int sample) { return &buffer[static_cast<size_t>(sample) * kLanes]; }

  float* hidden(int sample, int lane) {
    return &hidden_[(static_cast<size_t>(sample) * kLanes + lane) * network_.hidden.width];
  }

  void start(const int64_t* rays, int count) {
    count_ = count;
    float values[6][kLanes];
    for (int lane = 0; lane < kLanes; ++lane) {
      numbers_[lane] = picture_ * job_.rays + rays[lane < count ? lane : 0];
      for (int axis = 0; axis < 3; ++axis) {
        values[axis][lane] = job_.origins[3 * numbers_[lane] + axis];
        values[3 + axis][lane] = job_.directions[3 * numbers_[lane] + axis];
      }
    }
    for (int axis = 0; axis < 3; ++axis) {
      origin_[axis] = load(values[axis]);
      direction_[axis] = load(values[3 + axis]);
    }
  }

  // Computes hidden units and raw densities of samples first .. last - 1 of each ray.
  void evaluate(int first, int last) {
    for (int sample = first; sample < last; ++sample) locate(load(at(distances_, sample)), texels_of_[sample]);
    // Two rows of rays at once, so that what they read of a plane across them stays in the innermost cache.
    for (int lane = 0; lane < count_; lane += kRaysAtOnce)
      for (int sample = first; sample < last; ++sample) {
        prefetch(texels_of_[std::min(sample + 1, last - 1)], lane);
        look_up(sample, lane, std::min(count_, lane + kRaysAtOnce));
      }
    for (int sample = first; sample < last; ++sample) activate(sample);
  }

  // Requests what rays on a diagonal from `first` on read: on planes along the rays, the others read the same.
  void prefetch(const PacketTexels& texels, int first) const {
    const int64_t width = network_.hidden.width, below = job_.shape.row_stride() * width;
    for (int column = 0; column < kPacketSide; ++column)
      for (int plane = 1; plane < kPlanes; ++plane) {
        const int lane = first + column + column % 2 * kPacketSide;
        const float* corner = texels_ + texels.corner[plane][lane] * width;
        for (int64_t unit = 0; unit < 2 * width; unit += kLanes) {
          __builtin_prefetch(corner + unit);
          __builtin_prefetch(corner + below + unit);
        }
      }
  }

  // Looks up the hidden units of a sample of some rays.
  void look_up(int sample, int first, int last) {
    const int width = network_.hidden.width;
    const PacketTexels& texels = texels_of_[sample];
    for (int lane = first; lane < last; ++lane) {
      int unit = 0;
      for (; unit + kWideVectors * kLanes <= width; unit += kWideVectors * kLanes)
        look_up_units<kWideVectors>(texels, lane, unit, hidden(sample, lane));
      for (; unit < width; unit += kLanes) look_up_units<1>(texels, lane, unit, hidden(sample, lane));
    }
  }

  template <int VECTORS>
  void look_up_units(const PacketTexels& texels, int lane, int unit, float* result) const {
    const int64_t width = network_.hidden.width, below = job_.shape.row_stride() * width;
    Vector units[VECTORS];
    for (int v = 0; v < VECTORS; ++v) units[v] = load(&network_.hidden_bias[unit + v * kLanes]);
    for (int plane = 0; plane < kPlanes; ++plane) {
      const float* corner = texels_ + texels.corner[plane][lane] * width + unit;
      for (int texel = 0; texel < kTexels; ++texel) {
        const float* source = corner + (texel >> 1) * below + (texel & 1) * width;
        const Vector weight = broadcast(texels.weights[plane][texel][lane]);
        for (int v = 0; v < VECTORS; ++v) units[v] = fused(weight, load(source + v * kLanes), units[v]);
      }
    }
    for (int v = 0; v < VECTORS; ++v) store(result + unit + v * kLanes, units[v]);
  }

  // Applies the hidden units' softplus, and sums them up to densities.
  void activate(int sample) {
    const int width = network_.hidden.width;
    float totals[kLanes][kLanes] = {};
    for (int lane = 0; lane < count_; ++lane) {
      float* units = hidden(sample, lane);
      Vector total = {};
      for (int unit = 0; unit < width; unit += kLanes) {
        const Vector value = VectorMath::softplus(load(units + unit));
        store(units + unit, value);
        total = fused(value, load(&network_.density[unit]), total);
      }
      store(totals[lane], total);
    }
    store(at(densities_, sample), sums(totals) + network_.density_bias);
  }

  void locate(Vector distance, PacketTexels& texels) const {
    Vector point[3], column_parts[3], row_parts[3];
    Integers columns[3], rows[3];
    for (int axis = 0; axis < 3; ++axis) point[axis] = origin_[axis] + distance * direction_[axis];
    if (deformer_ != nullptr) deformer_->apply(point);
    for (int axis = 0; axis < 3; ++axis) {
      const Vector scaled = point[axis] * job_.shape.scale;
      const Vector column = texel_coordinate<VectorMath>(scaled, job_.shape.width);
      const Vector row = texel_coordinate<VectorMath>(scaled, job_.shape.height);
      const Vector left = VectorMath::floor(column), above = VectorMath::floor(row);
      columns[axis] = padded_indices(left);
      rows[axis] = padded_indices(above);
      column_parts[axis] = column - left;
      row_parts[axis] = row - above;
    }
    for (int plane = 0; plane < kPlanes; ++plane) {
      const int u = plane, v = (plane + 1) % 3;
      Vector weights[kTexels];
      texel_weights(column_parts[u], row_parts[v], weights);
      for (int texel = 0; texel < kTexels; ++texel) store(texels.weights[plane][texel], weights[texel]);
      const int first = static_cast<int>(plane * job_.shape.plane_texels());
      const Integers corner = rows[v] * static_cast<int>(job_.shape.row_stride()) + columns[u] + first;
      std::memcpy(texels.corner[plane], &corner, sizeof corner);
    }
  }

  // Fills `weights_` (count - 1) from densities (count) at ascending distances `t`, and sums them up.
  PacketSum march(int count, const float* t, const float* densities) {
    Doubles through = Doubles{} + 1;
    Vector total = {}, weighted = {}, density = load(densities), distance = load(t);
    const Vector first = distance;
    for (int k = 0; k + 1 < count; ++k) {
      const Vector next_density = load(densities + (k + 1) * kLanes), next = load(t + (k + 1) * kLanes);
      const Vector alpha = opacity<VectorMath>(density, next_density, distance, next);
      const Vector weight = alpha * __builtin_convertvector(through, Vector);
      through *= __builtin_convertvector(1.0f - alpha + 1e-10f, Doubles);
      total += weight;
      weighted += weight * ((next + distance) / 2.0f);
      store(at(weights_, k), weight);
      density = next_density;
      distance = next;
    }
    const Vector depth = weighted / total, nearer = depth <= distance ? depth : distance;
    return {depth >= first ? nearer : depth != depth ? distance : first, 1.0f - total};
  }

  // Fills the cumulative distribution of importance samples from coarse weights, as ray_math.h does for one ray.
  void cumulate() {
    const auto largest = [this](int k) {
      const Vector a = load(at(weights_, k)), b = load(at(weights_, k + 1));
      return (a != a) | (a > b) ? a : b;
    };
    Vector sum = {}, before = largest(0);
    for (int k = 1; k + 2 < job_.coarse; ++k) {
      const Vector after = largest(k), density = (before + after) / 2.0f + 0.01f + 1e-5f;
      store(at(cumulative_, k), density);
      sum += density;
      before = after;
    }
    Doubles running = {};
    store(at(cumulative_, 0), Vector{});
    for (int k = 1; k + 2 < job_.coarse; ++k) {
      running += __builtin_convertvector(load(at(cumulative_, k)) / sum, Doubles);
      store(at(cumulative_, k), __builtin_convertvector(running, Vector));
    }
  }

  void draw_fine_distances(int lane) {
    const int coarse = job_.coarse, fine = job_.fine, entries = coarse - 2;
    for (int k = 0; k < entries; ++k) ray_cumulative_[k] = at(cumulative_, k)[lane];
    const float* quantiles = job_.quantiles + (job_.quantiles_per_ray ? numbers_[lane] : picture_) * fine;
    for (int start = 0; start < fine; start += kLanes) {
      const int count = std::min(kLanes, fine - start);
      const Vector quantile = load_first(quantiles + start, count);
      Integers above = Integers{} + entries;
      for (int k = 0; k < entries; ++k) above += broadcast(ray_cumulative_[k]) > quantile;
      for (int k = 0; k < count; ++k)
        at(distances_, coarse + start + k)[lane] =
            distance_at(coarse, coarse_distances_, ray_cumulative_.data(), quantiles[start + k], above[k]);
    }
  }

  // Merges the samples of both passes of a ray by distance.
  void sort_samples(int lane) {
    const int coarse = job_.coarse, fine = job_.fine, samples = job_.samples();
    for (int k = 0; k < fine; ++k) ray_fine_[k] = at(distances_, coarse + k)[lane];
    if (std::is_sorted(ray_fine_.begin(), ray_fine_.end()) && ray_fine_.back() < HUGE_VALF) merge_ascending();
    else sort_any(lane);
    for (int k = 0; k < samples; ++k) {
      sorted_[static_cast<size_t>(k) * kLanes + lane] = ray_sorted_[k];
      at(sorted_distances_, k)[lane] = at(distances_, ray_sorted_[k])[lane];
      at(sorted_densities_, k)[lane] = at(densities_, ray_sorted_[k])[lane];
    }
  }

  // Without a branch for each sample: which comes next is hard to predict.
  void merge_ascending() {
    const int coarse = job_.coarse, fine = job_.fine, samples = job_.samples();
    for (int k = 0, i = 0, j = 0; k < samples; ++k) {
      const float next_coarse = i < coarse ? coarse_distances_[i] : HUGE_VALF;
      const float next_fine = j < fine ? ray_fine_[j] : HUGE_VALF;
      const int takes_fine = next_fine < next_coarse;
      ray_sorted_[k] = takes_fine ? coarse + j : i;
      j += takes_fine;
      i += 1 - takes_fine;
    }
  }

  void sort_any(int lane) {
    const auto before = [this, lane](int i, int j) {
      return comes_before(at(distances_, i)[lane], i, at(distances_, j)[lane], j);
    };
    std::iota(order_.begin(), order_.end(), 0);
    const auto middle = order_.begin() + job_.coarse;
    std::sort(middle, order_.end(), before);
    std::merge(order_.begin(), middle, middle, order_.end(), ray_sorted_.begin(), before);
  }

  // Sums up the colours of the samples, each weighted by half of the intervals on both its sides.
  void accumulate_colours() {
    const int samples = job_.samples();
    std::fill(features_.begin(), features_.end(), 0.0f);
    int pending = 0;
    for (int lane = 0; lane < count_; ++lane) {
      float before = 0;
      for (int k = 0; k < samples; ++k) {
        const size_t place = static_cast<size_t>(k) * kLanes + lane;
        const float after = k + 1 < samples ? weights_[place] : 0, weight = (before + after) / 2;
        before = after;
        if (weight < kNegligibleWeight) continue;
        inputs_[pending] = hidden(sorted_[place], lane);
        shares_[pending] = weight;
        owners_[pending] = lane;
        if (++pending < kNarrowRows) continue;
        add_colours(pending);
        pending = 0;
      }
    }
    add_colours(pending);
  }

  void add_colours(int count) {
    const int width = network_.colour.width;
    float* colours[kNarrowRows];
    for (int k = 0; k < count; ++k) colours[k] = &colours_[static_cast<size_t>(k) * width];
    multiply<kNarrowRows, kNarrowVectors, ColourSigmoid>(network_.colour, inputs_, count, colours);
    for (int k = 0; k < count; ++k) {
      float* target = &features_[static_cast<size_t>(owners_[k]) * width];
      for (int column = 0; column < width; column += kLanes)
        store(target + column, fused(broadcast(shares_[k]), load(colours[k] + column), load(target + column)));
    }
  }

  void finish(int lane) {
    const int samples = job_.samples(), outputs = job_.decoder.outputs;
    const int64_t number = numbers_[lane];
    const float* features = &features_[static_cast<size_t>(lane) * network_.colour.width];
    std::copy_n(features, outputs, job_.features + number * outputs);
    if (job_.sample_distances == nullptr) return;
    for (int k = 0; k < samples; ++k)
      job_.sample_distances[number * samples + k] = at(sorted_distances_, k)[lane];
    for (int k = 0; k + 1 < samples; ++k) job_.sample_weights[number * (samples - 1) + k] = at(weights_, k)[lane];
  }

  const RenderJob& job_;
  const Network& network_;
  const Deformer* deformer_;
  const float* texels_;
  const int64_t picture_;
  const float* coarse_distances_;
  int count_ = 0;  // of rays in the packet
  int64_t numbers_[kLanes];
  Vector origin_[3], direction_[3];
  std::vector<float> hidden_;                 // (samples, lanes, units): coarse samples, then fine ones
  std::vector<float> distances_, densities_;  // in the same order
  std::vector<float> sorted_distances_, sorted_densities_, weights_, cumulative_;
  std::vector<PacketTexels> texels_of_;
  std::vector<int> sorted_;
  std::vector<float> ray_cumulative_, ray_fine_;  // of one ray
  std::vector<int> order_, ray_sorted_;
  std::vector<float> features_;        // (lanes, outputs)
  const float* inputs_[kNarrowRows];   // samples whose colours are computed next
  float shares_[kNarrowRows];
  int owners_[kNarrowRows];
  std::vector<float> colours_;
};

}  // namespace

void render_cpu(const RenderJob& job) {
  if (job.batch * job.rays == 0) return;
  const Network network(job.decoder, job.shape.channels);
  const Packets packets(job.rays);
  const std::unique_ptr<float[]> texels(new float[job.table_texels() * network.hidden.width]);
  for (int64_t picture = 0; picture < job.batch; ++picture) {
    const float* table = job.table + picture * job.table_texels() * job.shape.channels;
    project_planes(job, network.hidden, table, texels.get());
    std::optional<Deformer> deformer;
    if (!job.pose.is_identity()) deformer.emplace(job.pose, picture);
    std::atomic<int64_t> next{0};  // rays differ in cost, so threads take the next few when they are done
    at::parallel_for(0, std::min<int64_t>(packets.count(), at::get_num_threads()), 1, [&](int64_t, int64_t) {
      PacketRenderer renderer(job, network, deformer ? &*deformer : nullptr, texels.get(), picture);
      int64_t rays[kLanes];
      for (int64_t packet = next++; packet < packets.count(); packet = next++)
        renderer.render(rays, packets.fill(packet, rays));
    });
  }
}

}  // namespace portrait4d
