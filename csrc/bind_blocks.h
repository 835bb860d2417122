// Binds attention inside blocks (blocks.h) to torch.

#pragma once

#include "bindings.h"

namespace lookaround {
namespace {

// Pixels are batch height width channel, form is heads channel channel, maps are place heads head_dim channel.
BlockProblem describe_blocks(const Tensor& pixels, Tensor& form, Tensor& maps, int64_t size) {
  const bool floats = pixels.scalar_type() == ScalarType::Float && form.scalar_type() == ScalarType::Float &&
                      maps.scalar_type() == ScalarType::Float;
  STD_TORCH_CHECK(floats && pixels.is_cpu() && form.is_cpu() && maps.is_cpu(),
                  "lookaround::block_attention: pixels, form and maps must be float32 CPU tensors");
  STD_TORCH_CHECK(pixels.dim() == 4 && form.dim() == 3 && maps.dim() == 4 && size >= 1 && size * size <= kMostPlaces,
                  "lookaround::block_attention: wrong number of dimensions, or blocks larger than 8 x 8");
  BlockProblem p;
  p.batch = pixels.size(0), p.height = pixels.size(1), p.width = pixels.size(2), p.channels = pixels.size(3);
  p.heads = form.size(0), p.head_dim = maps.size(2), p.size = size;
  STD_TORCH_CHECK(p.height >= 1 && p.width >= 1 && has_shape(form, {p.heads, p.channels, p.channels}) &&
                      has_shape(maps, {size * size, p.heads, p.head_dim, p.channels}),
                  "lookaround::block_attention: the shapes of pixels, form and maps must fit together");
  form = torch::stable::contiguous(form), maps = torch::stable::contiguous(maps);
  p.pixels = pixels.const_data_ptr<float>();
  for (int64_t i = 0; i < 4; ++i) p.pixel_strides[i] = pixels.stride(i);
  p.form = form.const_data_ptr<float>(), p.maps = maps.const_data_ptr<float>();
  return p;
}

int64_t block_rows(const BlockProblem& p) { return (p.height + p.size - 1) / p.size; }
int64_t block_work(const BlockProblem& p) { return p.width * p.size * p.size * p.size * p.heads * p.head_dim; }

Tensor block_forward(Tensor pixels, Tensor form, Tensor maps, int64_t size, bool pooled) {
  BlockProblem p = describe_blocks(pixels, form, maps, size);
  const int64_t rows = block_rows(p), columns = (p.width + size - 1) / size, outputs = p.heads * p.head_dim;
  Tensor out = pooled ? torch::stable::new_empty(pixels, {p.batch, rows, columns, outputs})
                      : torch::stable::new_empty(pixels, {p.batch, p.height, p.width, outputs});
  p.pooled = pooled, p.out = out.mutable_data_ptr<float>();
  run_tasks(selected_kernel().load()->blocks_forward, p, p.batch * rows, block_work(p));
  return out;
}

// Of each block the largest and the smallest output (batch blocks blocks outputs), and the sums of all outputs and
// of their squares (row of blocks, 2, outputs): what a batch norm and a max-pooling behind it need to know.
std::tuple<Tensor, Tensor, Tensor> block_extremes(Tensor pixels, Tensor form, Tensor maps, int64_t size) {
  BlockProblem p = describe_blocks(pixels, form, maps, size);
  const int64_t rows = block_rows(p), outputs = p.heads * p.head_dim;
  const Sizes shape{p.batch, rows, (p.width + size - 1) / size, outputs};
  Tensor largest = torch::stable::new_empty(pixels, shape), smallest = torch::stable::new_empty(pixels, shape);
  Tensor moments = torch::stable::new_empty(pixels, {p.batch * rows, 2, outputs});
  p.largest = largest.mutable_data_ptr<float>(), p.smallest = smallest.mutable_data_ptr<float>();
  p.moments = moments.mutable_data_ptr<float>();
  run_tasks(selected_kernel().load()->blocks_forward, p, p.batch * rows, block_work(p));
  return {largest, smallest, moments};
}

// Sums the tasks' parts in their order.
Tensor sum_tasks(const Tensor& parts, torch::headeronly::IntHeaderOnlyArrayRef sizes) {
  Tensor total = torch::stable::new_empty(parts, sizes);
  const int64_t tasks = parts.size(0), size = parts.size(1);
  std::vector<double> sums(static_cast<size_t>(size));
  const float* part = parts.const_data_ptr<float>();
  for (int64_t task = 0; task < tasks; ++task, part += size)
    for (int64_t i = 0; i < size; ++i) sums[i] += part[i];
  std::copy(sums.begin(), sums.end(), total.mutable_data_ptr<float>());
  return total;
}

std::tuple<Tensor, Tensor> differentiate_blocks(BlockProblem& p, const Tensor& pixels, const Tensor& form, const Tensor& maps) {
  const int64_t tasks = p.batch * block_rows(p);
  Tensor form_parts = torch::stable::new_empty(pixels, {tasks, form.numel()});
  Tensor map_parts = torch::stable::new_empty(pixels, {tasks, maps.numel()});
  p.grad_form = form_parts.mutable_data_ptr<float>(), p.grad_maps = map_parts.mutable_data_ptr<float>();
  run_tasks(selected_kernel().load()->blocks_backward, p, tasks, 3 * block_work(p));
  return {sum_tasks(form_parts, form.sizes()), sum_tasks(map_parts, maps.sizes())};
}

std::tuple<Tensor, Tensor> block_backward(Tensor grad_out, Tensor pixels, Tensor form, Tensor maps, int64_t size) {
  BlockProblem p = describe_blocks(pixels, form, maps, size);
  check_image("grad_out", grad_out, {p.batch, p.height, p.width, p.heads * p.head_dim}, ScalarType::Float);
  grad_out = torch::stable::contiguous(grad_out);
  p.grad_out = grad_out.const_data_ptr<float>();
  return differentiate_blocks(p, pixels, form, maps);
}

// The same from the gradient of each block's extreme, after a batch norm: see BlockProblem.
std::tuple<Tensor, Tensor> block_backward_pooled(Tensor grad_out, Tensor pixels, Tensor form, Tensor maps, Tensor scale,
                                                 Tensor slope, Tensor offset, int64_t size) {
  BlockProblem p = describe_blocks(pixels, form, maps, size);
  const int64_t outputs = p.heads * p.head_dim;
  check_image("grad_out", grad_out, {p.batch, block_rows(p), (p.width + size - 1) / size, outputs}, ScalarType::Float);
  grad_out = torch::stable::contiguous(grad_out);
  p.grad_out = grad_out.const_data_ptr<float>();
  for (Tensor* vector : {&scale, &slope, &offset}) {
    check_image("scale, slope and offset", *vector, {outputs}, ScalarType::Float);
    *vector = torch::stable::contiguous(*vector);
  }
  p.scale = scale.const_data_ptr<float>(), p.slope = slope.const_data_ptr<float>();
  p.offset = offset.const_data_ptr<float>();
  return differentiate_blocks(p, pixels, form, maps);
}

}  // namespace
}  // namespace lookaround
