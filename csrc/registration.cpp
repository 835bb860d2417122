// Binds the native CPU kernel to torch, on torch's stable ABI: one library serves every torch >= 2.10.
//
// Tensors are read where they lie: only one whose last dimension is strided is copied. Work is spread over
// torch's own threads by task; results do not depend on how many there are.

#include "bind_blocks.h"
#include "bind_norm.h"
#include "bindings.h"
#include "kernel.h"

namespace lookaround {
namespace {

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

// Channels or pixels must lie side by side.
Tensor readable(const Tensor& tensor) {
  const bool dense = tensor.size(4) == 1 || tensor.stride(4) == 1 || tensor.stride(2) == 1;
  return dense ? tensor : torch::stable::contiguous(tensor);
}

Tensor readable_table(const Tensor& table) {
  const bool is_float = table.scalar_type() == ScalarType::Float;
  return torch::stable::contiguous(is_float ? table : torch::stable::to(table, ScalarType::Float));
}

View view_of(const Tensor& tensor) {
  void* data = const_cast<void*>(tensor.const_data_ptr());
  const int64_t channel = tensor.size(4) == 1 ? 1 : tensor.stride(4);
  return {data, tensor.stride(0), tensor.stride(1), tensor.stride(2), tensor.stride(3), channel};
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

// The same into memory of the caller's: `out` as value, with a contiguous last dimension, and a contiguous logsumexp.
void forward_into(Tensor query, Optional key, Tensor value, Optional rows, Optional columns, Optional padding,
                  Sizes kernel_size, Sizes dilation, double scale, std::string border, Tensor out, Tensor logsumexp,
                  Optional bias, bool relu) {
  Inputs in{query, key, value, rows, columns, padding};
  Problem p = describe(in, {kernel_size, dilation, scale, border});
  if (bias) {
    STD_TORCH_CHECK(bias->is_cpu() && bias->scalar_type() == ScalarType::Float && bias->is_contiguous() &&
                        has_shape(*bias, {p.heads * p.value_dim}),
                    "lookaround::local_attention_forward_into: bias must be a float32 vector of heads*value_dim");
    p.out_bias = bias->const_data_ptr<float>();
  }
  p.out_relu = relu;
  check_image("out", out, Sizes(value.sizes().begin(), value.sizes().end()), query.scalar_type());
  check_image("logsumexp", logsumexp, {p.batch, p.heads, p.height, p.width}, ScalarType::Float);
  STD_TORCH_CHECK(out.stride(4) == 1 && logsumexp.is_contiguous(),
                  "lookaround::local_attention_forward_into: out and logsumexp must be written in place");
  if (p.batch == 0) return;
  p.out = view_of(out);
  p.logsumexp = logsumexp.mutable_data_ptr<float>();
  run_heads(selected_kernel().load()->forward, p);
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

}  // namespace
}  // namespace lookaround

STABLE_TORCH_LIBRARY(lookaround, m) {
  m.def(
      "local_attention_forward(Tensor query, Tensor? key, Tensor value, Tensor? row_embedding, "
      "Tensor? column_embedding, Tensor? key_padding_mask, int[2] kernel_size, int[2] dilation, float scale, "
      "str border) -> (Tensor out, Tensor logsumexp)");
  m.def(
      "local_attention_forward_into(Tensor query, Tensor? key, Tensor value, Tensor? row_embedding, "
      "Tensor? column_embedding, Tensor? key_padding_mask, int[2] kernel_size, int[2] dilation, float scale, "
      "str border, Tensor(a!) out, Tensor(b!) logsumexp, Tensor? out_bias=None, bool relu=False) -> ()");
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
  m.def(
      "block_attention_extremes(Tensor pixels, Tensor form, Tensor maps, int size) -> (Tensor largest, Tensor smallest, "
      "Tensor moments)");
  m.def(
      "block_attention_backward_pooled(Tensor grad_out, Tensor pixels, Tensor form, Tensor maps, Tensor scale, "
      "Tensor slope, Tensor offset, int size) -> (Tensor grad_form, Tensor grad_maps)");
  // Batch norm in training, of float32 pixels (batch height width channels).
  m.def("batch_moments(Tensor x) -> (Tensor mean, Tensor variance)");
  m.def(
      "batch_normalize(Tensor x, Tensor? added, Tensor mean, Tensor variance, Tensor weight, Tensor bias, float eps) "
      "-> Tensor");
  m.def(
      "batch_norm_backward(Tensor grad, Tensor x, Tensor? y, Tensor mean, Tensor variance, Tensor weight, Tensor bias, "
      "float eps) -> (Tensor grad_x, Tensor grad_added, Tensor grad_weight, Tensor grad_bias)");
  m.def("cpu_kernels() -> str");
  m.def("set_cpu_kernel(str name) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(lookaround, CPU, m) {
  m.impl("local_attention_forward", TORCH_BOX(&lookaround::forward));
  m.impl("local_attention_forward_into", TORCH_BOX(&lookaround::forward_into));
  m.impl("local_attention_backward", TORCH_BOX(&lookaround::backward));
  m.impl("block_attention_forward", TORCH_BOX(&lookaround::block_forward));
  m.impl("block_attention_backward", TORCH_BOX(&lookaround::block_backward));
  m.impl("block_attention_extremes", TORCH_BOX(&lookaround::block_extremes));
  m.impl("block_attention_backward_pooled", TORCH_BOX(&lookaround::block_backward_pooled));
  m.impl("batch_moments", TORCH_BOX(&lookaround::batch_moments));
  m.impl("batch_normalize", TORCH_BOX(&lookaround::batch_normalize));
  m.impl("batch_norm_backward", TORCH_BOX(&lookaround::batch_norm_backward));
  m.impl("local_attention_backward_packed", TORCH_BOX(&lookaround::backward_packed));
}

STABLE_TORCH_LIBRARY_IMPL(lookaround, CompositeExplicitAutograd, m) {
  m.impl("cpu_kernels", TORCH_BOX(&lookaround::cpu_kernels));
  m.impl("set_cpu_kernel", TORCH_BOX(&lookaround::set_cpu_kernel));
}
