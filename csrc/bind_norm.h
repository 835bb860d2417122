// Binds batch norm in training (norm.h) to torch.

#pragma once

#include "bindings.h"

#include <cmath>

namespace lookaround {
namespace {

// The channels' numbers of a batch norm, and how images are cut into tasks.
struct Norm {
  int64_t pixels, channels, tasks;
  NormProblem p;
  std::vector<float> scale, shift, slope, offset;

  explicit Norm(const Tensor& x) : channels(x.size(3)) {
    STD_TORCH_CHECK(x.is_cpu() && x.scalar_type() == ScalarType::Float && x.dim() == 4 && x.is_contiguous() && x.numel() > 0,
                    "lookaround::batch_norm: x must be batch height width channels, float32, contiguous, on the CPU");
    pixels = x.size(0) * x.size(1) * x.size(2);
    p.pixels = pixels, p.channels = channels;
    p.pixels_per_task = std::max<int64_t>(8, kNormTask / channels);
    p.x = x.const_data_ptr<float>();
    tasks = (pixels + p.pixels_per_task - 1) / p.pixels_per_task;
  }

  void run(void (*function)(const NormProblem&, int64_t, int64_t)) { run_tasks(function, p, tasks, p.pixels_per_task * channels); }

  void set_scale(const float* mean, const float* variance, const Tensor& weight, const Tensor& bias, double eps) {
    check(weight), check(bias);
    scale.resize(channels), shift.resize(channels);
    for (int64_t k = 0; k < channels; ++k) {
      scale[k] = weight.const_data_ptr<float>()[k] / std::sqrt(variance[k] + static_cast<float>(eps));
      shift[k] = bias.const_data_ptr<float>()[k] - mean[k] * scale[k];
    }
    p.mean = mean, p.scale = scale.data(), p.shift = shift.data();
  }

  // Adds the tasks' sums up in their order: of the first and of the second kind.
  std::vector<double> total(const Tensor& sums) const {
    std::vector<double> totals(static_cast<size_t>(2 * channels));
    const float* part = sums.const_data_ptr<float>();
    for (int64_t task = 0; task < tasks; ++task, part += 2 * channels)
      for (int64_t i = 0; i < 2 * channels; ++i) totals[i] += part[i];
    return totals;
  }

  void check(const Tensor& vector) const {
    STD_TORCH_CHECK(vector.is_cpu() && vector.scalar_type() == ScalarType::Float && has_shape(vector, {channels}) && vector.is_contiguous(),
                    "lookaround::batch_norm: weight, bias, mean and variance must be float32 vectors of channels");
  }
  void check_like(const Tensor& x, const Tensor& image) const {
    const Sizes sizes(x.sizes().begin(), x.sizes().end());
    STD_TORCH_CHECK(image.is_cpu() && image.scalar_type() == ScalarType::Float && has_shape(image, sizes) && image.is_contiguous(),
                    "lookaround::batch_norm: all images must be as x");
  }

 private:
  static constexpr int64_t kNormTask = 1 << 14;  // numbers of one task
};

// The mean and the biased variance of every channel.
std::tuple<Tensor, Tensor> batch_moments(Tensor x) {
  Norm norm(x);
  Tensor sums = torch::stable::new_empty(x, {norm.tasks, 2, norm.channels});
  norm.p.sums = sums.mutable_data_ptr<float>();
  norm.run(selected_kernel().load()->moments);
  const std::vector<double> totals = norm.total(sums);
  Tensor mean = torch::stable::new_empty(x, {norm.channels}), variance = torch::stable::new_empty(x, {norm.channels});
  for (int64_t k = 0; k < norm.channels; ++k) {
    const double shifted = totals[k] / norm.pixels, square = totals[norm.channels + k] / norm.pixels;
    mean.mutable_data_ptr<float>()[k] = static_cast<float>(shifted + norm.p.x[k]);
    variance.mutable_data_ptr<float>()[k] = static_cast<float>(std::max(0.0, square - shifted * shifted));
  }
  return {mean, variance};
}

Tensor batch_normalize(Tensor x, Optional added, Tensor mean, Tensor variance, Tensor weight, Tensor bias, double eps) {
  Norm norm(x);
  norm.check(mean), norm.check(variance);
  norm.set_scale(mean.const_data_ptr<float>(), variance.const_data_ptr<float>(), weight, bias, eps);
  if (added) norm.check_like(x, *added), norm.p.added = added->const_data_ptr<float>();
  Tensor y = torch::stable::new_empty(x, x.sizes());
  norm.p.y = y.mutable_data_ptr<float>();
  norm.run(selected_kernel().load()->normalize);
  return y;
}

// Gradients of x, of what was added (empty if y is not given), of weight and bias.
std::tuple<Tensor, Tensor, Tensor, Tensor> batch_norm_backward(Tensor grad, Tensor x, Optional y, Tensor mean, Tensor variance,
                                                               Tensor weight, Tensor bias, double eps) {
  Norm norm(x);
  norm.check(mean), norm.check(variance), norm.check_like(x, grad);
  norm.set_scale(mean.const_data_ptr<float>(), variance.const_data_ptr<float>(), weight, bias, eps);
  if (y) norm.check_like(x, *y), norm.p.y = const_cast<float*>(y->const_data_ptr<float>());
  Tensor sums = torch::stable::new_empty(x, {norm.tasks, 2, norm.channels});
  norm.p.sums = sums.mutable_data_ptr<float>(), norm.p.grad = grad.const_data_ptr<float>();
  norm.run(selected_kernel().load()->sum_gradients);
  const std::vector<double> totals = norm.total(sums);
  Tensor to_weight = torch::stable::new_empty(x, {norm.channels}), to_bias = torch::stable::new_empty(x, {norm.channels});
  norm.slope.resize(norm.channels), norm.offset.resize(norm.channels);
  for (int64_t k = 0; k < norm.channels; ++k) {
    const double inverse = 1.0 / std::sqrt(static_cast<double>(variance.const_data_ptr<float>()[k]) + eps);
    const double sum = totals[k], product = totals[norm.channels + k];
    to_weight.mutable_data_ptr<float>()[k] = static_cast<float>(product * inverse);
    to_bias.mutable_data_ptr<float>()[k] = static_cast<float>(sum);
    const double slope = -norm.scale[k] * product * inverse * inverse / norm.pixels;
    norm.slope[k] = static_cast<float>(slope);
    norm.offset[k] = static_cast<float>(-norm.scale[k] * sum / norm.pixels - slope * norm.p.mean[k]);
  }
  norm.p.slope = norm.slope.data(), norm.p.offset = norm.offset.data();
  Tensor to_x = torch::stable::new_empty(x, x.sizes());
  Tensor to_added = y ? torch::stable::new_empty(x, x.sizes()) : torch::stable::new_empty(x, {0});
  norm.p.grad_x = to_x.mutable_data_ptr<float>();
  if (y) norm.p.grad_added = to_added.mutable_data_ptr<float>();
  norm.run(selected_kernel().load()->differentiate);
  return {to_x, to_added, to_weight, to_bias};
}

}  // namespace
}  // namespace lookaround
