// Binds the native CPU kernel to torch, on torch's stable ABI: one library serves every torch >= 2.10.
//
// Tensors are read where they lie: only one whose last dimension is strided is copied. Work is spread over
// torch's own threads by task; results do not depend on how many there are.

#include "kernel.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <atomic>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

// The instruction sets that were compiled, the fastest last: X(baseline) X(avx2) ...
#ifndef LOOKAROUND_INSTRUCTION_SETS
#define LOOKAROUND_INSTRUCTION_SETS X(baseline)
#endif

namespace lookaround {

#define X(name) extern const Kernel kernel_##name;
LOOKAROUND_INSTRUCTION_SETS
#undef X

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Optional = std::optional<Tensor>;
using Sizes = std::vector<int64_t>;

#define X(name) &kernel_##name,
const Kernel* const kKernels[] = {LOOKAROUND_INSTRUCTION_SETS};
#undef X

// Multiply-adds that are worth waking a thread for.
constexpr int64_t kWorkPerThread = 1 << 17;

const Kernel* fastest_supported() {
  const Kernel* found = nullptr;
  for (const Kernel* kernel : kKernels) {
    if (kernel->supported()) found = kernel;
  }
  STD_TORCH_CHECK(found != nullptr, "lookaround: no compiled kernel runs on this processor");
  return found;
}

std::atomic<const Kernel*>& selected_kernel() {
  static std::atomic<const Kernel*> selected{fastest_supported()};
  return selected;
}

// One word per compiled instruction set, the fastest last: name, name! (in use) or name? (not supported here).
std::string cpu_kernels() {
  std::string words;
  for (const Kernel* kernel : kKernels) {
    if (!words.empty()) words += ' ';
    words += kernel->name;
    if (!kernel->supported()) words += '?';
    if (kernel == selected_kernel().load()) words += '!';
  }
  return words;
}

void set_cpu_kernel(std::string name) {
  for (const Kernel* kernel : kKernels) {
    if (name != kernel->name) continue;
    STD_TORCH_CHECK(kernel->supported(), "lookaround: this processor has no ", name);
    selected_kernel().store(kernel);
    return;
  }
  STD_TORCH_CHECK(false, "lookaround: no kernel was compiled for ", name);
}

struct Inputs {
  Tensor query;
  Optional key;
  Tensor value;
  Optional rows, columns, padding;
};

struct Options {
  Sizes kernel_size, dilation;
  double scale;
  std::string border;
};

bool has_shape(const Tensor& tensor, const Sizes& shape) {
  const auto sizes = tensor.sizes();
  return sizes.size() == shape.size() && std::equal(shape.begin(), shape.end(), sizes.begin());
}

Tensor readable(const Tensor& tensor) {
  const bool dense = tensor.size(4) == 1 || tensor.stride(4) == 1;
  return dense ? tensor : torch::stable::contiguous(tensor);
}

Tensor readable_table(const Tensor& table) {
  const bool is_float = table.scalar_type() == ScalarType::Float;
  return torch::stable::contiguous(is_float ? table : torch::stable::to(table, ScalarType::Float));
}

View view_of(const Tensor& tensor) {
  void* data = const_cast<void*>(tensor.const_data_ptr());
  return {data, tensor.stride(0), tensor.stride(1), tensor.stride(2), tensor.stride(3)};
}

// The front door in Python checks and explains; these checks keep a direct call of the op inside its memory.
void check_image(const char* name, const Tensor& image, const Sizes& shape, ScalarType dtype) {
  STD_TORCH_CHECK(image.is_cpu() && image.scalar_type() == dtype && has_shape(image, shape),
                  "lookaround::local_attention: ", name, " must be a CPU tensor of the dtype of query and fit its shape");
}

void check_table(const char* name, const Optional& table, int64_t heads, int64_t length, int64_t head_dim) {
  if (!table) return;
  const int64_t half = head_dim / 2;
  const bool fits = has_shape(*table, {length, half}) || has_shape(*table, {heads, length, half});
  STD_TORCH_CHECK(table->is_cpu() && fits && head_dim % 2 == 0, "lookaround::local_attention: ", name,
                  " must be a CPU tensor of shape ([heads], kernel, head_dim/2), and head_dim even");
}

void check(const Inputs& in, const Options& options) {
  const Tensor& query = in.query;
  STD_TORCH_CHECK(query.dim() == 5 && in.value.dim() == 5, "lookaround::local_attention: query and value must be 5-dimensional");
  const ScalarType dtype = query.scalar_type();
  STD_TORCH_CHECK(dtype == ScalarType::Float || dtype == ScalarType::BFloat16,
                  "lookaround::local_attention: query must be float32 or bfloat16");
  Sizes shape(query.sizes().begin(), query.sizes().end());
  check_image("query", query, shape, dtype);
  if (in.key) check_image("key", *in.key, shape, dtype);
  shape[4] = in.value.size(4);
  check_image("value", in.value, shape, dtype);
  const auto positive = [](int64_t size) { return size >= 1; };
  const auto usable = [&](const Sizes& pair) { return pair.size() == 2 && std::all_of(pair.begin(), pair.end(), positive); };
  STD_TORCH_CHECK(usable(options.kernel_size) && usable(options.dilation) && std::all_of(shape.begin() + 1, shape.end(), positive),
                  "lookaround::local_attention: sizes must be at least 1");
  STD_TORCH_CHECK(options.kernel_size[0] % 2 == 1 && options.kernel_size[1] % 2 == 1,
                  "lookaround::local_attention: kernel_size must be odd");
  STD_TORCH_CHECK(options.border == "mask" || options.border == "zeros", "lookaround::local_attention: border must be mask or zeros");
  check_table("row_embedding", in.rows, query.size(3), options.kernel_size[0], query.size(4));
  check_table("column_embedding", in.columns, query.size(3), options.kernel_size[1], query.size(4));
  if (in.padding) check_image("key_padding_mask", *in.padding, {shape[0], shape[1], shape[2]}, ScalarType::Bool);
}

// Replaces what the kernel cannot read in place by copies, which `in` then keeps alive.
Problem describe(Inputs& in, const Options& options) {
  check(in, options);
  in.query = readable(in.query);
  in.value = readable(in.value);
  if (in.key) in.key = readable(*in.key);
  if (in.rows) in.rows = readable_table(*in.rows);
  if (in.columns) in.columns = readable_table(*in.columns);
  if (in.padding) in.padding = torch::stable::contiguous(*in.padding);

  Problem p;
  p.batch = in.query.size(0), p.height = in.query.size(1), p.width = in.query.size(2);
  p.heads = in.query.size(3), p.head_dim = in.query.size(4), p.value_dim = in.value.size(4);
  p.kernel_height = options.kernel_size[0], p.kernel_width = options.kernel_size[1];
  p.dilation_height = options.dilation[0], p.dilation_width = options.dilation[1];
  p.scale = static_cast<float>(options.scale);
  p.zeros_border = options.border == "zeros";
  p.dtype = in.query.scalar_type() == ScalarType::Float ? Dtype::float32 : Dtype::bfloat16;
  p.query = view_of(in.query);
  p.value = view_of(in.value);
  if (in.key) p.key = view_of(*in.key);
  if (in.rows) {
    p.rows = in.rows->const_data_ptr<float>();
    p.rows_head_stride = in.rows->dim() == 3 ? in.rows->stride(0) : 0;
  }
  if (in.columns) {
    p.columns = in.columns->const_data_ptr<float>();
    p.columns_head_stride = in.columns->dim() == 3 ? in.columns->stride(0) : 0;
  }
  if (in.padding) p.padding = in.padding->const_data_ptr<bool>();
  return p;
}

template <class P>
void run_tasks(void (*function)(const P&, int64_t, int64_t), const P& p, int64_t tasks, int64_t work) {
  const int64_t grain = std::max<int64_t>(1, kWorkPerThread / std::max<int64_t>(1, work));
  torch::stable::parallel_for(0, tasks, grain, [&](int64_t first, int64_t last) { function(p, first, last); });
}

void run_heads(void (*function)(const Problem&, int64_t, int64_t), const Problem& p) {
  const int64_t work = p.height * p.width * p.kernel_height * p.kernel_width * (p.head_dim + p.value_dim);
  run_tasks(function, p, p.batch * p.heads, work);
}

std::tuple<Tensor, Tensor> forward(Tensor query, Optional key, Tensor value, Optional rows, Optional columns,
                                   Optional padding, Sizes kernel_size, Sizes dilation, double scale,
                                   std::string border) {
  Inputs in{query, key, value, rows, columns, padding};
  Problem p = describe(in, {kernel_size, dilation, scale, border});
  Tensor out = torch::stable::new_empty(query, value.sizes());
  Tensor logsumexp = torch::stable::new_empty(query, {p.batch, p.heads, p.height, p.width}, ScalarType::Float);
  if (p.batch > 0) {
    p.out = view_of(out);
    p.logsumexp = logsumexp.mutable_data_ptr<float>();
    run_heads(selected_kernel().load()->forward, p);
  }
  return {out, logsumexp};
}

// Sums the tasks' parts of a table's gradient in the order of the tasks; `parts` is batch heads length half.
Tensor sum_parts(const Tensor& parts, const Optional& table, ScalarType dtype) {
  if (!table) return torch::stable::new_empty(parts, {0}, dtype);
  const int64_t tasks = parts.size(0) * parts.size(1), size = parts.size(2) * parts.size(3);
  const int64_t tables = table->dim() == 3 ? parts.size(1) : 1;
  std::vector<double> sums(static_cast<size_t>(tables * size));
  const float* part = parts.const_data_ptr<float>();
  for (int64_t task = 0; task < tasks; task++, part += size) {
    double* sum = sums.data() + task % tables * size;
    for (int64_t i = 0; i < size; i++) sum[i] += part[i];
  }
  Tensor total = torch::stable::new_empty(parts, table->sizes());
  std::copy(sums.begin(), sums.end(), total.mutable_data_ptr<float>());
  return total;
}

// A table may be of another dtype than the float32 that its gradient is summed in.
Tensor cast_like(const Tensor& gradient, const Optional& table) {
  if (!table || table->scalar_type() == gradient.scalar_type()) return gradient;
  return torch::stable::to(gradient, table->scalar_type());
}

struct TableGradients {
  Tensor rows, columns;
};

// Runs the backward pass on gradients that `p` already points to; returns those of the tables.
TableGradients differentiate(Problem& p, const Inputs& in, Tensor grad_out, Tensor logsumexp) {
  const ScalarType dtype = in.query.scalar_type();
  check_image("grad_out", grad_out, Sizes(in.value.sizes().begin(), in.value.sizes().end()), dtype);
  check_image("logsumexp", logsumexp, {p.batch, p.heads, p.height, p.width}, ScalarType::Float);
  grad_out = readable(grad_out);
  logsumexp = torch::stable::contiguous(logsumexp);
  const auto parts = [&](const Optional& table, int64_t length) {
    const int64_t tasks = table ? p.batch : 0;
    return torch::stable::new_empty(in.query, {tasks, p.heads, length, p.head_dim / 2}, ScalarType::Float);
  };
  Tensor row_parts = parts(in.rows, p.kernel_height), column_parts = parts(in.columns, p.kernel_width);
  if (p.batch > 0) {
    p.grad_out = view_of(grad_out);
    p.logsumexp = const_cast<float*>(logsumexp.const_data_ptr<float>());
    if (in.rows) p.grad_rows = row_parts.mutable_data_ptr<float>();
    if (in.columns) p.grad_columns = column_parts.mutable_data_ptr<float>();
    run_heads(selected_kernel().load()->backward, p);
  }
  return {sum_parts(row_parts, in.rows, dtype), sum_parts(column_parts, in.columns, dtype)};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> backward(Tensor grad_out, Tensor query, Optional key, Tensor value,
                                                            Optional rows, Optional columns, Optional padding,
                                                            Tensor logsumexp, Sizes kernel_size, Sizes dilation,
                                                            double scale, std::string border) {
  Inputs in{query, key, value, rows, columns, padding};
  Problem p = describe(in, {kernel_size, dilation, scale, border});
  const auto empty = [&](torch::headeronly::IntHeaderOnlyArrayRef sizes) { return torch::stable::new_empty(query, sizes); };
  Tensor grad_query = empty(query.sizes()), grad_value = empty(value.sizes());
  Tensor grad_key = key ? empty(query.sizes()) : empty({0});
  p.grad_query = view_of(grad_query), p.grad_value = view_of(grad_value);
  if (key) p.grad_key = view_of(grad_key);
  TableGradients tables = differentiate(p, in, grad_out, logsumexp);
  return {grad_query, grad_key, grad_value, cast_like(tables.rows, rows), cast_like(tables.columns, columns)};
}

// The gradients of query, key and value as one tensor: batch height width maps heads dim, as a projection makes them.
std::tuple<Tensor, Tensor, Tensor> backward_packed(Tensor grad_out, Tensor query, Optional key, Tensor value,
                                                   Optional rows, Optional columns, Optional padding, Tensor logsumexp,
                                                   Sizes kernel_size, Sizes dilation, double scale,
                                                   std::string border) {
  Inputs in{query, key, value, rows, columns, padding};
  Problem p = describe(in, {kernel_size, dilation, scale, border});
  STD_TORCH_CHECK(p.head_dim == p.value_dim, "lookaround::local_attention_backward_packed: value_dim must equal head_dim");
  Tensor packed = torch::stable::new_empty(query, {p.batch, p.height, p.width, key ? 3 : 2, p.heads, p.head_dim});
  const int64_t map_bytes = p.heads * p.head_dim * (p.dtype == Dtype::float32 ? 4 : 2);
  const auto map = [&](int64_t i) {
    char* data = static_cast<char*>(packed.mutable_data_ptr()) + i * map_bytes;
    return View{data, packed.stride(0), packed.stride(1), packed.stride(2), packed.stride(4)};
  };
  p.grad_query = map(0), p.grad_value = map(key ? 2 : 1);
  if (key) p.grad_key = map(1);
  TableGradients tables = differentiate(p, in, grad_out, logsumexp);
  return {packed, cast_like(tables.rows, rows), cast_like(tables.columns, columns)};
}

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

std::tuple<Tensor, Tensor> block_backward(Tensor grad_out, Tensor pixels, Tensor form, Tensor maps, int64_t size) {
  BlockProblem p = describe_blocks(pixels, form, maps, size);
  check_image("grad_out", grad_out, {p.batch, p.height, p.width, p.heads * p.head_dim}, ScalarType::Float);
  grad_out = torch::stable::contiguous(grad_out);
  const int64_t tasks = p.batch * block_rows(p);
  Tensor form_parts = torch::stable::new_empty(pixels, {tasks, form.numel()});
  Tensor map_parts = torch::stable::new_empty(pixels, {tasks, maps.numel()});
  p.grad_out = grad_out.const_data_ptr<float>();
  p.grad_form = form_parts.mutable_data_ptr<float>(), p.grad_maps = map_parts.mutable_data_ptr<float>();
  run_tasks(selected_kernel().load()->blocks_backward, p, tasks, 3 * block_work(p));
  return {sum_tasks(form_parts, form.sizes()), sum_tasks(map_parts, maps.sizes())};
}

}  // namespace
}  // namespace lookaround

STABLE_TORCH_LIBRARY(lookaround, m) {
  m.def(
      "local_attention_forward(Tensor query, Tensor? key, Tensor value, Tensor? row_embedding, "
      "Tensor? column_embedding, Tensor? key_padding_mask, int[2] kernel_size, int[2] dilation, float scale, "
      "str border) -> (Tensor out, Tensor logsumexp)");
  // A gradient that does not exist (of a key or table that is None) is an empty tensor.
  m.def(
      "local_attention_backward(Tensor grad_out, Tensor query, Tensor? key, Tensor value, Tensor? row_embedding, "
      "Tensor? column_embedding, Tensor? key_padding_mask, Tensor logsumexp, int[2] kernel_size, int[2] dilation, "
      "float scale, str border) -> (Tensor grad_query, Tensor grad_key, Tensor grad_value, "
      "Tensor grad_row_embedding, Tensor grad_column_embedding)");
  m.def(
      "local_attention_backward_packed(Tensor grad_out, Tensor query, Tensor? key, Tensor value, "
      "Tensor? row_embedding, Tensor? column_embedding, Tensor? key_padding_mask, Tensor logsumexp, "
      "int[2] kernel_size, int[2] dilation, float scale, str border) -> (Tensor grad_packed, "
      "Tensor grad_row_embedding, Tensor grad_column_embedding)");
  m.def("block_attention_forward(Tensor pixels, Tensor form, Tensor maps, int size, bool pooled) -> Tensor");
  m.def(
      "block_attention_backward(Tensor grad_out, Tensor pixels, Tensor form, Tensor maps, int size) -> "
      "(Tensor grad_form, Tensor grad_maps)");
  m.def("cpu_kernels() -> str");
  m.def("set_cpu_kernel(str name) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(lookaround, CPU, m) {
  m.impl("local_attention_forward", TORCH_BOX(&lookaround::forward));
  m.impl("local_attention_backward", TORCH_BOX(&lookaround::backward));
  m.impl("block_attention_forward", TORCH_BOX(&lookaround::block_forward));
  m.impl("block_attention_backward", TORCH_BOX(&lookaround::block_backward));
  m.impl("local_attention_backward_packed", TORCH_BOX(&lookaround::backward_packed));
}

STABLE_TORCH_LIBRARY_IMPL(lookaround, CompositeExplicitAutograd, m) {
  m.impl("cpu_kernels", TORCH_BOX(&lookaround::cpu_kernels));
  m.impl("set_cpu_kernel", TORCH_BOX(&lookaround::set_cpu_kernel));
}
