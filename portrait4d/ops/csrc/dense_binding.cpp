// Registration of the dense operations of CPUs as torch.ops.portrait4d.*; fake kernels are in ops/native_kernels.py.
#include <ATen/ATen.h>
#include <torch/library.h>

#include <optional>

#include "dense_ops.h"

namespace portrait4d {
namespace {

using at::Tensor;

NumberType number_type(const Tensor& tensor) {
  const bool half = tensor.scalar_type() == at::kBFloat16;
  TORCH_CHECK(half || tensor.scalar_type() == at::kFloat, "portrait4d: expected float32 or bfloat16, got ",
              tensor.scalar_type());
  return half ? NumberType::kBfloat16 : NumberType::kFloat32;
}

// Picture and weight are of one type, the bias of any; the result is channels-last.
Tensor convolve3x3(const Tensor& picture, const Tensor& weight, const std::optional<Tensor>& bias, double slope,
                   double limit) {
  const int64_t outputs = weight.size(0), inputs = weight.size(1);
  const NumberType type = number_type(picture);
  TORCH_CHECK(type == NumberType::kFloat32 ? convolves_float32() : convolves_bfloat16(),
              "portrait4d: this processor has no products of ", picture.scalar_type());
  TORCH_CHECK(picture.size(1) == inputs && outputs % 32 == 0 && inputs % 32 == 0, "portrait4d: expected pictures of ",
              inputs, " channels, multiples of 32");
  const Tensor pixels = picture.permute({0, 2, 3, 1}).contiguous(), kernels = weight.to(at::kFloat).contiguous();
  const Tensor offsets = bias ? bias->to(at::kFloat).contiguous() : at::zeros({outputs}, kernels.options());
  Tensor result = at::empty({pixels.size(0), pixels.size(1), pixels.size(2), outputs}, pixels.options());
  const Convolution job{type, pixels.size(0), pixels.size(1), pixels.size(2), static_cast<int>(inputs),
                        static_cast<int>(outputs), pixels.const_data_ptr(), kernels.const_data_ptr<float>(),
                        offsets.const_data_ptr<float>(), static_cast<float>(slope), static_cast<float>(limit),
                        result.data_ptr()};
  type == NumberType::kFloat32 ? convolve_float32_cpu(job) : convolve_bfloat16_cpu(job);
  return result.permute({0, 3, 1, 2});
}

Tensor& softmax_rows_(Tensor& scores, double scale) {
  const int64_t width = scores.size(-1);
  TORCH_CHECK(scores.is_contiguous() && width > 0 && width % 16 == 0,
              "portrait4d: expected contiguous rows of a multiple of 16 numbers, got ", width);
  softmax_rows_cpu({number_type(scores), scores.numel() / width, static_cast<int>(width), static_cast<float>(scale),
                    scores.data_ptr()});
  return scores;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(portrait4d, library) {
  library.def("convolve3x3(Tensor picture, Tensor weight, Tensor? bias, float slope, float limit) -> Tensor");
  library.def("convolves_float32() -> bool", convolves_float32);
  library.def("convolves_bfloat16() -> bool", convolves_bfloat16);
  library.def("softmax_rows_(Tensor(a!) scores, float scale) -> Tensor(a!)");
}

TORCH_LIBRARY_IMPL(portrait4d, CPU, library) {
  library.impl("convolve3x3", convolve3x3);
  library.impl("softmax_rows_", softmax_rows_);
}

}  // namespace portrait4d
