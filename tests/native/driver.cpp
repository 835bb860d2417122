// Calls the native kernel over many odd shapes, without torch, for the sanitizers to watch.
//
// Every tensor is a block of memory of exactly its size, so that a read or write beside it is seen. Outputs are
// filled with NaN first, and none may be left; forward outputs are compared with plain loops.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "kernel.h"

namespace lookaround {
extern const Kernel LOOKAROUND_KERNEL;
}

namespace {

using lookaround::Dtype;
using lookaround::Problem;
using lookaround::View;

struct Shape {
  int64_t batch, height, width, heads, head_dim, value_dim, kernel_height, kernel_width, dilation_height, dilation_width;
};

struct Choice {
  bool bfloat16, key, rows, columns, per_head, padding, zeros, fused;
};

uint32_t state = 1;

float draw() {  // about uniform in [-1, 1)
  state = state * 1664525u + 1013904223u;
  return static_cast<float>(state >> 8) / 8388608.0f - 1.0f;
}

uint16_t round_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

float widen(uint16_t half) {
  const uint32_t bits = static_cast<uint32_t>(half) << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

// batch height width heads dim, alone or the slice `part` of three that lie side by side, as in a projection.
struct Image {
  Image(const Shape& s, int64_t dim, bool bfloat16, int64_t parts = 1) : half(bfloat16), dim(dim) {
    view.head = dim;
    view.width = parts * s.heads * dim;
    view.height = s.width * view.width;
    view.batch = s.height * view.height;
    count = s.batch * view.batch;
    bytes.reset(static_cast<unsigned char*>(std::malloc(static_cast<size_t>(count) * (half ? 2 : 4))));
    view.data = bytes.get();
  }
  void set(int64_t i, float value) {
    if (half) reinterpret_cast<uint16_t*>(bytes.get())[i] = std::isnan(value) ? 0x7fc0 : round_bits(value);
    else reinterpret_cast<float*>(bytes.get())[i] = value;
  }
  float get(int64_t i) const {
    return half ? widen(reinterpret_cast<uint16_t*>(bytes.get())[i]) : reinterpret_cast<float*>(bytes.get())[i];
  }
  void fill_randomly() { for (int64_t i = 0; i < count; i++) set(i, draw()); }
  void fill(float value) { for (int64_t i = 0; i < count; i++) set(i, value); }
  bool holds_nan() const {
    for (int64_t i = 0; i < count; i++) if (std::isnan(get(i))) return true;
    return false;
  }
  // Channels of pixels instead of pixels of channels, in the same memory.
  void lie_in_planes(const Shape& s) {
    view.channel = s.height * s.width, view.head = view.channel * dim, view.batch = view.head * s.heads;
    view.height = s.width, view.width = 1;
  }
  View part(int64_t which) const {
    View slice = view;
    slice.data = bytes.get() + which * (view.width / 3) * (half ? 2 : 4);
    return slice;
  }

  struct Free { void operator()(unsigned char* p) const { std::free(p); } };
  bool half;
  int64_t dim, count;
  View view;
  std::unique_ptr<unsigned char, Free> bytes;
};

float read(const Problem& p, const View& v, int64_t b, int64_t y, int64_t x, int64_t h, int64_t d) {
  const int64_t at = b * v.batch + y * v.height + x * v.width + h * v.head + d * v.channel;
  return p.dtype == Dtype::bfloat16 ? widen(static_cast<uint16_t*>(v.data)[at]) : static_cast<float*>(v.data)[at];
}

bool present(const Problem& p, int64_t b, int64_t y, int64_t x) {
  if (y < 0 || y >= p.height || x < 0 || x >= p.width) return false;
  return p.padding == nullptr || !p.padding[(b * p.height + y) * p.width + x];
}

// Largest difference between the kernel's output and plain loops in double.
double forward_error(const Problem& p) {
  double worst = 0;
  const int64_t half = p.head_dim / 2;
  for (int64_t b = 0; b < p.batch; b++)
    for (int64_t h = 0; h < p.heads; h++)
      for (int64_t y = 0; y < p.height; y++)
        for (int64_t x = 0; x < p.width; x++) {
          std::vector<double> sums(static_cast<size_t>(p.value_dim));
          double total = 0;
          for (int64_t i = 0; i < p.kernel_height && present(p, b, y, x); i++)
            for (int64_t j = 0; j < p.kernel_width; j++) {
              const int64_t yy = y + (i - p.kernel_height / 2) * p.dilation_height;
              const int64_t xx = x + (j - p.kernel_width / 2) * p.dilation_width;
              const bool there = present(p, b, yy, xx);
              if (!there && !p.zeros_border) continue;
              double logit = 0;
              for (int64_t d = 0; d < p.head_dim; d++) {
                double answer = there && p.key.data ? read(p, p.key, b, yy, xx, h, d) : 0;
                if (d < half && p.rows) answer += p.rows[h * p.rows_head_stride + i * half + d];
                if (d >= half && p.columns) answer += p.columns[h * p.columns_head_stride + j * half + d - half];
                logit += p.scale * read(p, p.query, b, y, x, h, d) * answer;
              }
              const double weight = std::exp(logit);
              total += weight;
              for (int64_t d = 0; d < p.value_dim && there; d++) sums[static_cast<size_t>(d)] += weight * read(p, p.value, b, yy, xx, h, d);
            }
          for (int64_t d = 0; d < p.value_dim; d++) {
            const double exact = total > 0 ? sums[static_cast<size_t>(d)] / total : 0;
            worst = std::fmax(worst, std::fabs(exact - read(p, p.out, b, y, x, h, d)));
          }
        }
  return worst;
}

std::vector<float> random_floats(int64_t count) {
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = draw();
  values.shrink_to_fit();
  return values;
}

bool holds_nan(const std::vector<float>& values) {
  for (float value : values) if (std::isnan(value)) return true;
  return false;
}

bool run(const Shape& s, const Choice& c, bool planar) {
  const bool fused = c.fused && c.key && s.head_dim == s.value_dim && !planar;
  const bool tables = s.head_dim % 2 == 0;
  Image query(s, s.head_dim, c.bfloat16, fused ? 3 : 1), key(s, s.head_dim, c.bfloat16), value(s, s.value_dim, c.bfloat16);
  Image out(s, s.value_dim, c.bfloat16), grad_out(s, s.value_dim, c.bfloat16);
  Image grad_query(s, s.head_dim, c.bfloat16), grad_key(s, s.head_dim, c.bfloat16), grad_value(s, s.value_dim, c.bfloat16);
  for (Image* image : {&query, &key, &value, &grad_out}) image->fill_randomly();
  if (planar)
    for (Image* image : {&query, &key, &value}) image->lie_in_planes(s);
  for (Image* image : {&out, &grad_query, &grad_key, &grad_value}) image->fill(NAN);

  Problem p;
  p.batch = s.batch, p.height = s.height, p.width = s.width, p.heads = s.heads;
  p.head_dim = s.head_dim, p.value_dim = s.value_dim;
  p.kernel_height = s.kernel_height, p.kernel_width = s.kernel_width;
  p.dilation_height = s.dilation_height, p.dilation_width = s.dilation_width;
  p.scale = 0.7f, p.zeros_border = c.zeros;
  p.dtype = c.bfloat16 ? Dtype::bfloat16 : Dtype::float32;
  p.query = fused ? query.part(0) : query.view;
  if (c.key) p.key = fused ? query.part(1) : key.view;
  p.value = fused ? query.part(2) : value.view;

  const int64_t half = s.head_dim / 2, tasks = s.batch * s.heads, copies = c.per_head ? s.heads : 1;
  const std::vector<float> rows = random_floats(copies * s.kernel_height * half), columns = random_floats(copies * s.kernel_width * half);
  std::vector<float> grad_rows(static_cast<size_t>(tasks * s.kernel_height * half), NAN), grad_columns(static_cast<size_t>(tasks * s.kernel_width * half), NAN);
  if (tables && c.rows) p.rows = rows.data(), p.rows_head_stride = c.per_head ? s.kernel_height * half : 0, p.grad_rows = grad_rows.data();
  if (tables && c.columns) p.columns = columns.data(), p.columns_head_stride = c.per_head ? s.kernel_width * half : 0, p.grad_columns = grad_columns.data();
  const std::unique_ptr<bool[]> padding(new bool[static_cast<size_t>(s.batch * s.height * s.width)]);
  for (int64_t i = 0; i < s.batch * s.height * s.width; i++) padding[static_cast<size_t>(i)] = draw() > 0.4f;
  if (c.padding) p.padding = padding.get();
  std::vector<float> logsumexp(static_cast<size_t>(tasks * s.height * s.width), NAN);
  p.logsumexp = logsumexp.data();
  p.out = out.view, p.grad_out = grad_out.view;
  p.grad_query = grad_query.view, p.grad_value = grad_value.view;
  if (c.key) p.grad_key = grad_key.view;

  lookaround::LOOKAROUND_KERNEL.forward(p, 0, tasks);
  const double error = forward_error(p);
  lookaround::LOOKAROUND_KERNEL.backward(p, 0, tasks / 2);
  lookaround::LOOKAROUND_KERNEL.backward(p, tasks / 2, tasks);
  bool unwritten = out.holds_nan() || grad_query.holds_nan() || grad_value.holds_nan() || holds_nan(logsumexp);
  unwritten |= c.key && grad_key.holds_nan();
  unwritten |= (p.rows && holds_nan(grad_rows)) || (p.columns && holds_nan(grad_columns));
  const bool wrong = !(error <= (c.bfloat16 ? 8e-3 : 2e-5));
  if (wrong || unwritten) {
    std::printf("%s: b%lld %lldx%lld n%lld d%lld v%lld k%lldx%lld dilation %lldx%lld, bf16 %d key %d rows %d columns %d per head %d padding %d zeros %d fused %d: error %g%s\n",
                lookaround::LOOKAROUND_KERNEL.name, (long long)s.batch, (long long)s.height, (long long)s.width, (long long)s.heads,
                (long long)s.head_dim, (long long)s.value_dim, (long long)s.kernel_height, (long long)s.kernel_width,
                (long long)s.dilation_height, (long long)s.dilation_width, c.bfloat16, c.key, c.rows, c.columns, c.per_head,
                c.padding, c.zeros, fused, error, unwritten ? ", NaN left" : "");
  }
  return !wrong && !unwritten;
}

// The same blocks by their extremes, and the gradient that comes back through them.
bool run_extremes(lookaround::BlockProblem p, const std::vector<float>& pooled, int64_t tasks, int64_t columns) {
  const int64_t outputs = p.heads * p.head_dim;
  const size_t blocks = static_cast<size_t>(tasks * columns * outputs);
  std::vector<float> largest(blocks, NAN), smallest(blocks, NAN), moments(static_cast<size_t>(tasks * 2 * outputs), NAN);
  p.pooled = false, p.out = nullptr;
  p.largest = largest.data(), p.smallest = smallest.data(), p.moments = moments.data();
  lookaround::LOOKAROUND_KERNEL.blocks_forward(p, 0, tasks);
  bool right = largest == pooled && !holds_nan(smallest) && !holds_nan(moments);
  for (size_t i = 0; i < blocks; i++) right &= smallest[i] <= largest[i];
  const std::vector<float> grad = random_floats(static_cast<int64_t>(blocks)), scale = random_floats(outputs);
  const std::vector<float> slope = random_floats(outputs), offset = random_floats(outputs);
  p.grad_out = grad.data(), p.scale = scale.data(), p.slope = slope.data(), p.offset = offset.data(), p.moments = nullptr;
  const int64_t form = tasks * p.heads * p.channels * p.channels, maps = tasks * p.size * p.size * outputs * p.channels;
  std::fill_n(p.grad_form, form, NAN), std::fill_n(p.grad_maps, maps, NAN);
  lookaround::LOOKAROUND_KERNEL.blocks_backward(p, 0, tasks);
  for (int64_t i = 0; i < form; i++) right &= !std::isnan(p.grad_form[i]);
  for (int64_t i = 0; i < maps; i++) right &= !std::isnan(p.grad_maps[i]);
  return right;
}

// Batch norm against plain loops in double: the output, and that every gradient is written.
bool run_norm(int64_t pixels, int64_t channels, int64_t pixels_per_task, bool with_added) {
  lookaround::NormProblem p;
  p.pixels = pixels, p.channels = channels, p.pixels_per_task = pixels_per_task;
  const int64_t tasks = (pixels + pixels_per_task - 1) / pixels_per_task, size = pixels * channels;
  const std::vector<float> x = random_floats(size), added = random_floats(size), grad = random_floats(size);
  const std::vector<float> mean = random_floats(channels), scale = random_floats(channels), shift = random_floats(channels);
  std::vector<float> sums(static_cast<size_t>(tasks * 2 * channels), NAN), y(static_cast<size_t>(size), NAN);
  std::vector<float> to_x(static_cast<size_t>(size), NAN), to_added(static_cast<size_t>(size), NAN);
  p.x = x.data(), p.y = y.data(), p.sums = sums.data(), p.mean = mean.data(), p.scale = scale.data(), p.shift = shift.data();
  if (with_added) p.added = added.data();
  lookaround::LOOKAROUND_KERNEL.moments(p, 0, tasks);
  bool wrong = holds_nan(sums);
  lookaround::LOOKAROUND_KERNEL.normalize(p, 0, tasks);
  for (int64_t i = 0; i < size; i++) {
    const size_t at = static_cast<size_t>(i), k = static_cast<size_t>(i % channels);
    const double exact = static_cast<double>(x[at]) * scale[k] + shift[k] + (with_added ? added[at] : 0);
    wrong |= !(std::fabs(std::fmax(exact, 0.0) - y[at]) < 1e-5);
  }
  p.grad = grad.data(), p.grad_x = to_x.data(), p.slope = mean.data(), p.offset = shift.data();
  if (with_added) p.grad_added = to_added.data();
  else p.y = nullptr;
  std::fill(sums.begin(), sums.end(), NAN);
  lookaround::LOOKAROUND_KERNEL.sum_gradients(p, 0, tasks);
  lookaround::LOOKAROUND_KERNEL.differentiate(p, 0, tasks);
  wrong |= holds_nan(sums) || holds_nan(to_x) || (with_added && holds_nan(to_added));
  if (wrong) std::printf("%s: norm of %lld pixels of %lld channels wrong\n", lookaround::LOOKAROUND_KERNEL.name, (long long)pixels, (long long)channels);
  return !wrong;
}

// Attention inside blocks: what the sanitizers see, whether all is written, and pooled against whole.
bool run_blocks(int64_t batch, int64_t height, int64_t width, int64_t channels, int64_t heads, int64_t head_dim, int64_t size) {
  lookaround::BlockProblem p;
  p.batch = batch, p.height = height, p.width = width, p.channels = channels, p.heads = heads, p.head_dim = head_dim, p.size = size;
  const int64_t rows = (height + size - 1) / size, columns = (width + size - 1) / size, tasks = batch * rows;
  const int64_t outputs = heads * head_dim;
  const std::vector<float> pixels = random_floats(batch * channels * height * width);
  const std::vector<float> form = random_floats(heads * channels * channels), maps = random_floats(size * size * outputs * channels);
  const std::vector<float> grad_out = random_floats(batch * height * width * outputs);
  std::vector<float> out(static_cast<size_t>(batch * height * width * outputs), NAN), pooled(static_cast<size_t>(tasks * columns * outputs), NAN);
  std::vector<float> grad_form(static_cast<size_t>(tasks) * form.size(), NAN), grad_maps(static_cast<size_t>(tasks) * maps.size(), NAN);
  p.pixels = pixels.data(), p.form = form.data(), p.maps = maps.data();
  const int64_t strides[4] = {channels * height * width, width, 1, height * width};  // contiguous memory, channels first
  std::copy(strides, strides + 4, p.pixel_strides);
  p.out = out.data();
  lookaround::LOOKAROUND_KERNEL.blocks_forward(p, 0, tasks);
  p.grad_out = grad_out.data(), p.grad_form = grad_form.data(), p.grad_maps = grad_maps.data();
  lookaround::LOOKAROUND_KERNEL.blocks_backward(p, 0, tasks);
  p.pooled = true, p.out = pooled.data();
  lookaround::LOOKAROUND_KERNEL.blocks_forward(p, 0, tasks);
  bool wrong = holds_nan(out) || holds_nan(pooled) || holds_nan(grad_form) || holds_nan(grad_maps);
  for (int64_t b = 0; b < batch; b++)
    for (int64_t y = 0; y < rows; y++)
      for (int64_t x = 0; x < columns; x++)
        for (int64_t o = 0; o < outputs; o++) {
          float largest = -INFINITY;
          for (int64_t i = y * size; i < std::min(height, (y + 1) * size); i++)
            for (int64_t j = x * size; j < std::min(width, (x + 1) * size); j++)
              largest = std::fmax(largest, out[static_cast<size_t>(((b * height + i) * width + j) * outputs + o)]);
          wrong |= largest != pooled[static_cast<size_t>(((b * rows + y) * columns + x) * outputs + o)];
        }
  wrong |= !run_extremes(p, pooled, tasks, columns);
  if (wrong) std::printf("%s: blocks of %lld in %lldx%lld wrong\n", lookaround::LOOKAROUND_KERNEL.name, (long long)size, (long long)height, (long long)width);
  return !wrong;
}

}  // namespace

int main() {
  if (!lookaround::LOOKAROUND_KERNEL.supported()) {
    std::printf("%s: not supported by this processor, skipped\n", lookaround::LOOKAROUND_KERNEL.name);
    return 0;
  }
  const std::vector<Shape> shapes = {
      {1, 1, 1, 1, 1, 1, 1, 1, 1, 1},   {1, 1, 1, 1, 8, 8, 7, 7, 1, 1},    {2, 5, 4, 2, 4, 3, 3, 3, 1, 1},
      {1, 7, 7, 2, 64, 64, 7, 7, 1, 1}, {1, 14, 14, 1, 32, 32, 7, 7, 1, 1}, {1, 3, 28, 2, 16, 16, 7, 7, 1, 1},
      {1, 9, 56, 1, 8, 8, 7, 7, 1, 1},  {1, 1, 17, 1, 8, 8, 3, 3, 1, 1},   {1, 17, 1, 1, 8, 8, 3, 3, 1, 1},
      {1, 16, 33, 1, 8, 8, 5, 5, 1, 1}, {2, 8, 15, 1, 8, 16, 9, 9, 1, 1},  {1, 6, 31, 1, 16, 8, 11, 11, 1, 1},
      {1, 3, 4, 1, 6, 5, 15, 15, 1, 1}, {1, 2, 3, 1, 4, 4, 5, 5, 3, 3},    {1, 13, 19, 1, 10, 7, 3, 5, 2, 1},
      {1, 11, 18, 2, 5, 9, 5, 3, 1, 3}, {3, 4, 4, 3, 3, 2, 1, 7, 1, 1},    {1, 30, 5, 1, 2, 1, 7, 1, 4, 1},
      {1, 4, 65, 1, 12, 12, 3, 3, 1, 2}, {1, 2, 129, 1, 8, 8, 7, 7, 1, 1},  {2, 10, 10, 2, 24, 40, 13, 3, 1, 1},
  };
  const std::vector<Choice> choices = {
      // bf16   key    rows   cols   head   pad    zeros  fused
      {false, true, true, true, false, false, false, true},  {true, true, true, true, false, false, false, true},
      {false, true, true, true, true, true, false, false},   {false, true, true, true, true, true, true, true},
      {false, true, false, false, false, false, true, false}, {false, false, true, true, false, false, false, false},
      {true, false, true, false, true, true, true, false},   {false, true, false, true, false, true, false, false},
      {false, false, false, false, false, true, false, false}, {true, true, true, false, false, false, true, true},
  };
  int failures = 0, calls = 0;
  for (const Shape& shape : shapes)
    for (const Choice& choice : choices) {
      failures += !run(shape, choice, false) + !run(shape, choice, true);
      calls += 2;
    }
  for (int64_t width : {1, 3, 4, 63, 64, 65, 130})
    for (int64_t size : {1, 3, 4, 8}) {
      failures += !run_blocks(2, 5, width, 3, 4, 16, size) + !run_blocks(1, 9, width, 2, 3, 5, size);
      calls += 2;
    }
  for (int64_t channels : {1, 15, 16, 37, 130})
    for (int64_t pixels : {1, 2, 5, 64, 67})
      for (bool with_added : {false, true}) {
        failures += !run_norm(pixels, channels, 8, with_added);
        calls++;
      }
  std::printf("%s: %d calls forward and backward, %d wrong\n", lookaround::LOOKAROUND_KERNEL.name, calls, failures);
  return failures == 0 ? 0 : 1;
}
