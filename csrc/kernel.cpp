// Local attention on one processor, compiled once per instruction set.
//
// The lanes of a vector are neighbouring pixels of a row. The keys and values of one head are copied once into
// planes, line by line and channel by channel, with a border of zeros, so that a pixel's neighbours are a load at
// another offset. A tile is `tile_rows` query lines by one vector of pixels: every key that is loaded serves all
// rows of the tile. All k*k logits of a tile lie in the first-level cache between the two products.
//
// Dilation d splits the image into d*d phases without dilation. Where an image is at most half a vector wide, a
// vector holds two lines of it, `lines` apart: its two halves.
//
// Prefixes: n_ counts, i_ indexes.

#include <algorithm>
#include <limits>

#include "blocks.h"
#include "head.h"
#include "kernel.h"
#include "layout.h"
#include "norm.h"
#include "products.h"
#include "simd.h"

namespace lookaround {
namespace LOOKAROUND_ISA {
namespace {

constexpr float kLargest = std::numeric_limits<float>::max();
constexpr int kChannels = 4;     // channels that are accumulated together
constexpr int kMostOffsets = lanes >= 16 ? 7 : 5;  // offsets along a row whose logits are accumulated together

// What a tile multiplies: its query vectors with every vector of their windows.
struct Products {
  const float* query;  // dim row lane
  const Plane* plane;
  int64_t y0, rows, x;             // the tile
  const float *lines, *columns;    // q·row and q·column, which the products are added to; or null
  bool masked, clamped;            // whether absent pixels must be hidden, and infinite logits made finite
  float* out;                      // row offset_y offset_x lane
  Floats* peak;                    // the largest logit of each row; or null
  float pair_factor = 0.0f;        // not 0: query and plane hold pairs of bfloat16, whose products take this factor
};

template <int Halves>
class Head : HeadTensors {
 public:
  Head(const Problem& problem, const Geometry& geometry, Workspace& workspace, int64_t task)
      : HeadTensors(problem, geometry, workspace, task) {
    window = g.n_rows * g.n_columns;
    half_dim = p.head_dim / 2;
    rows_table = p.rows ? p.rows + head * p.rows_head_stride : nullptr;
    columns_table = p.columns ? p.columns + head * p.columns_head_stride : nullptr;
  }

  void forward() {
    fill(w.keys, p.key, 1.0f), fill(w.values, p.value, 1.0f);
    if (in_pairs()) pair_channels(w.keys);
    for (int64_t y0 = 0; y0 < g.lines; y0 += tile_rows)
      for (int64_t n = 0; n < g.vectors; ++n) forward_tile(y0, n);
  }

  void backward() {
    fill(w.keys, p.key, 1.0f), fill(w.values, p.value, 1.0f);
    fill(w.queries, p.query, p.scale * kLog2e), fill(w.gradients, p.grad_out, 1.0f);
    const int64_t pixels = g.plane_lines() * g.vectors * lanes;
    std::fill_n(w.grad_keys, pixels * w.keys.dim, 0.0f);
    std::fill_n(w.grad_values, pixels * p.value_dim, 0.0f);
    for (int64_t y0 = 0; y0 < g.lines; y0 += tile_rows) {
      const int64_t rows = std::min<int64_t>(tile_rows, g.lines - y0);
      for (int64_t n = 0; n < g.vectors; ++n) backward_tile(y0, rows, n);
      if (p.key.data) spread(w.line_to_logits, w.queries, w.grad_keys, y0, rows);
      spread(w.line_weights, w.gradients, w.grad_values, y0, rows);
    }
    if (p.key.data) write_plane(w.grad_keys, p.head_dim, kLn2, p.grad_key);
    write_plane(w.grad_values, p.value_dim, 1.0f, p.grad_value);
  }

 private:
  int64_t window, half_dim;
  const float *rows_table, *columns_table;

  bool in_pairs() const {
    return has_pair_products && p.dtype == Dtype::bfloat16 && p.key.data && p.head_dim % 2 == 0 && p.scale != 0.0f;
  }

  bool is_masked(int64_t y0, int64_t rows, int64_t x) const {
    if (p.zeros_border) return false;
    if (p.padding || Halves == 2) return true;
    return y0 < g.radius_y || y0 + rows + g.radius_y > g.height || x < g.radius_x ||
           x + lanes + g.radius_x > g.width;
  }

  // The same from a plane.
  void copy_tile(const Plane& plane, int64_t y0, int64_t rows, int64_t x, float* to) const {
    for (int64_t c = 0; c < plane.dim; ++c)
      for (int64_t r = 0; r < rows; ++r) {
        const float* from = plane.line(y0 + r) + c * g.pitch + g.radius_x + x;
        store(to + (c * tile_rows + r) * lanes, load_pixels<Halves>(from, g.half_pitch));
      }
  }

  // out[entry][row] = table[entry]·query[row]
  void multiply_table(const float* query, const float* table, int64_t entries, float* out) const {
    if (!table) {
      std::fill_n(out, entries * tile_rows * lanes, 0.0f);
      return;
    }
    for (int64_t e = 0; e < entries; ++e, table += half_dim, out += tile_rows * lanes) {
      Floats acc[tile_rows] = {};
      for (int64_t c = 0; c < half_dim; ++c)
        for (int r = 0; r < tile_rows; ++r) acc[r] += load(query + (c * tile_rows + r) * lanes) * table[c];
      for (int r = 0; r < tile_rows; ++r) store(out + r * lanes, acc[r]);
    }
  }

  void multiply_tables(const float* query) const {
    multiply_table(query, rows_table, g.n_rows, w.lines);
    multiply_table(query + half_dim * tile_rows * lanes, columns_table, g.n_columns, w.columns);
  }

  void multiply_windows(const Products& job) const {
    for (int64_t i = 0; i < job.rows + g.n_rows - 1; ++i) {
      const int64_t first = std::max<int64_t>(0, i - g.n_rows + 1), last = std::min(job.rows - 1, i);
      switch (last - first + 1) {
        case 1: multiply_line<1>(job, i, first); break;
        case 2: multiply_line<2>(job, i, first); break;
        case 3: multiply_line<3>(job, i, first); break;
        case 4: multiply_line<4>(job, i, first); break;
      }
    }
  }

  // Line i of the tile's windows, for the rows that see it; row r sees it as its window's row i - r.
  template <int Rows>
  void multiply_line(const Products& job, int64_t i, int64_t first) const {
    if constexpr (Rows <= tile_rows) {
      for (int64_t b = 0; b < g.n_columns;) {
        const int64_t left = g.n_columns - b, parts = (left + kMostOffsets - 1) / kMostOffsets;
        const int64_t offsets = (left + parts - 1) / parts;
        switch (offsets) {
          case 1: multiply_part<Rows, 1>(job, i, first, b); break;
          case 2: multiply_part<Rows, 2>(job, i, first, b); break;
          case 3: multiply_part<Rows, 3>(job, i, first, b); break;
          case 4: multiply_part<Rows, 4>(job, i, first, b); break;
          case 5: multiply_part<Rows, 5>(job, i, first, b); break;
          case 6: multiply_part<Rows, 6>(job, i, first, b); break;
          case 7: multiply_part<Rows, 7>(job, i, first, b); break;
        }
        b += offsets;
      }
    }
  }

  // q·row and q·column of one place in the window.
  static const float* line_logit(const Products& job, int64_t a, int64_t row) {
    return job.lines + (a * tile_rows + row) * lanes;
  }
  static const float* column_logit(const Products& job, int64_t b, int64_t row) {
    return job.columns + (b * tile_rows + row) * lanes;
  }
  static LOOKAROUND_INLINE Floats position(const Products& job, int64_t a, int64_t b, int64_t row) {
    return load(line_logit(job, a, row)) + load(column_logit(job, b, row));
  }

  // The careful way to the same logits: no term and no sum becomes infinite, so none becomes NaN.
  static void add_finite(const Products& job, int64_t a, int64_t b, int64_t row, Floats& logit) {
    logit = clamp(logit);
    if (!job.lines) return;
    logit = clamp(logit + clamp(load(line_logit(job, a, row))));
    logit = clamp(logit + clamp(load(column_logit(job, b, row))));
  }
  static Floats clamp(Floats x) { return maximum(broadcast(-kLargest), minimum(broadcast(kLargest), x)); }

  template <int Rows, int Offsets>
  LOOKAROUND_INLINE void multiply_part(const Products& job, int64_t i, int64_t first, int64_t b0) const {
    const int64_t y = job.y0 - g.radius_y + i;
    Floats acc[Rows][Offsets];
    for (int r = 0; r < Rows; ++r)
      for (int b = 0; b < Offsets; ++b) {
        const int64_t row = first + r;
        const bool starts = job.lines && !job.clamped && job.pair_factor == 0.0f;
        acc[r][b] = starts ? position(job, i - row, b0 + b, row) : Floats{};
      }
    const float *query = job.query + first * lanes, *key = job.plane->line(y) + job.x + b0;
    if (has_pair_products && job.pair_factor != 0.0f) {
      multiply_pairs<Rows, Offsets, Halves>(acc, query, key, g.pitch, g.half_pitch, job.plane->dim / 2);
      for (int r = 0; r < Rows; ++r)
        for (int b = 0; b < Offsets; ++b) {
          acc[r][b] *= job.pair_factor;
          if (!job.clamped) acc[r][b] += position(job, i - first - r, b0 + b, first + r);
        }
    } else {
      multiply<Rows, Offsets, Halves>(acc, query, key, g.pitch, g.half_pitch, job.plane->dim);
    }
    if (job.clamped)
      for (int r = 0; r < Rows; ++r)
        for (int b = 0; b < Offsets; ++b) add_finite(job, i - first - r, b0 + b, first + r, acc[r][b]);
    if (job.masked) {
      const float* mask = w.mask.line(y) + job.x + b0;
      for (int b = 0; b < Offsets; ++b) {
        const Floats m = load_pixels<Halves>(mask + b, g.half_pitch);
        for (int r = 0; r < Rows; ++r) acc[r][b] += m;
      }
    }
    for (int r = 0; r < Rows; ++r) {
      const int64_t row = first + r;
      float* out = job.out + ((row * g.n_rows + i - row) * g.n_columns + b0) * lanes;
      for (int b = 0; b < Offsets; ++b) store(out + b * lanes, acc[r][b]);
      if (!job.peak) continue;
      Floats peak = job.peak[row];
      for (int b = 0; b < Offsets; ++b) peak = maximum(peak, acc[r][b]);
      job.peak[row] = peak;
    }
  }

  // Weights before normalisation, from logits in units of ln 2: their largest and their sum, for each row.
  // False where a logit overflowed; that tile is then computed with care.
  bool exponentiate(const Products& job, Floats* sums) const {
    for (int64_t r = 0; r < job.rows; ++r) job.peak[r] = broadcast(-kLargest);
    multiply_windows(job);
    const Ints lane = lane_numbers() & static_cast<int32_t>(g.half_lanes - 1);
    const Ints valid = lane < static_cast<int32_t>(std::min(g.half_lanes, g.width - job.x));
    Ints overflowed = {};
    for (int64_t r = 0; r < job.rows; ++r) {
      float* weights = job.out + r * window * lanes;
      Floats sum = {};
      for (int64_t i = 0; i < window; ++i) {
        const Floats e = exp2(load(weights + i * lanes) - job.peak[r]);
        store(weights + i * lanes, e);
        sum += e;
      }
      sums[r] = sum;
      overflowed |= valid & ~((job.peak[r] < kLargest) & (job.peak[r] > -kLargest) & (sum == sum));
    }
    return !any_lane(overflowed);
  }

  // result[channel][row] = sum of weights times a plane's vectors over the windows of a tile.
  void sum_windows(const float* weights, const Plane& plane, int64_t y0, int64_t rows, int64_t x) const {
    int64_t c = 0;
    for (; c + kChannels <= plane.dim; c += kChannels)
      sum_channels<kChannels>(weights, plane, y0, rows, x, c);
    for (; c < plane.dim; ++c) sum_channels<1>(weights, plane, y0, rows, x, c);
  }

  template <int Channels>
  void sum_channels(const float* weights, const Plane& plane, int64_t y0, int64_t rows, int64_t x,
                    int64_t channel) const {
    Floats acc[tile_rows][Channels] = {};
    for (int64_t i = 0; i < rows + g.n_rows - 1; ++i) {
      const int64_t first = std::max<int64_t>(0, i - g.n_rows + 1), last = std::min(rows - 1, i);
      Walk walk;
      walk.weight = weights + (first * window + (i - first) * g.n_columns) * lanes;
      walk.weight_row = (window - g.n_columns) * lanes, walk.weight_step = lanes, walk.weight_half = lanes / 2;
      walk.value = plane.line(y0 - g.radius_y + i) + channel * g.pitch + x;
      walk.value_channel = g.pitch, walk.value_step = 1, walk.value_half = g.half_pitch;
      walk.count = g.n_columns;
      accumulate_rows<Channels, Halves>(acc, first, last - first + 1, walk);
    }
    for (int c = 0; c < Channels; ++c)
      for (int r = 0; r < tile_rows; ++r)
        store(w.result + ((channel + c) * tile_rows + r) * lanes, acc[r][c]);
  }

  void forward_tile(int64_t y0, int64_t n) const {
    const int64_t rows = std::min<int64_t>(tile_rows, g.lines - y0), x = n * g.half_lanes;
    const float factor = p.scale * kLog2e;
    gather_query(y0, rows, x, in_pairs() ? 1.0f : factor);
    if (in_pairs()) pair_query(factor);
    multiply_tables(w.query);
    Floats peak[tile_rows], sums[tile_rows], norm[tile_rows];
    Products job{w.query, &w.keys, y0, rows, x, w.lines, w.columns, is_masked(y0, rows, x), false, w.weights, peak};
    if (in_pairs()) job.query = w.pairs, job.pair_factor = factor;
    if (!exponentiate(job, sums)) {
      job.clamped = true;
      exponentiate(job, sums);
    }
    for (int64_t r = 0; r < rows; ++r) {
      const Ints some = sums[r] != 0.0f;  // none where nothing is to be seen
      norm[r] = (Floats)((Ints)(1.0f / sums[r]) & some);
      peak[r] = (peak[r] + log2(sums[r])) * kLn2;
      peak[r] = (Floats)(((Ints)peak[r] & some) | ((Ints)broadcast(kInfinity) & ~some));
    }
    sum_windows(w.weights, w.values, y0, rows, x);
    const float* bias = p.out_bias ? p.out_bias + head * p.value_dim : nullptr;
    const Floats least = broadcast(p.out_relu ? 0.0f : -kInfinity);
    for (int64_t c = 0; c < p.value_dim; ++c)
      for (int64_t r = 0; r < rows; ++r) {
        float* out = w.result + (c * tile_rows + r) * lanes;
        store(out, maximum(least, load(out) * norm[r] + (bias ? bias[c] : 0.0f)));
      }
    write_tile(y0, rows, x, p.value_dim, 1.0f, p.out);
    write_logsumexp(y0, rows, x, peak);
  }

  void backward_tile(int64_t y0, int64_t rows, int64_t n) const {
    const int64_t x = n * g.half_lanes, row_lanes = tile_rows * lanes;
    copy_tile(w.queries, y0, rows, x, w.query);
    copy_tile(w.gradients, y0, rows, x, w.gradient);
    multiply_tables(w.query);
    Floats logsumexp[tile_rows];
    bool clamped = false;  // as the forward pass did
    for (int64_t r = 0; r < rows; ++r) {
      const Floats l = logsumexp[r] = read_logsumexp(y0 + r, x);
      clamped = clamped || any_lane((l < -1e37f) | ((l > 1e37f) & (l < kInfinity)));
    }
    Products job{w.query, &w.keys, y0, rows, x, w.lines, w.columns, is_masked(y0, rows, x), clamped,
                 w.weights, nullptr};
    multiply_windows(job);
    job.query = w.gradient, job.plane = &w.values, job.lines = nullptr, job.columns = nullptr;
    job.masked = job.clamped = false, job.out = w.to_logits;
    multiply_windows(job);
    for (int64_t r = 0; r < rows; ++r) differentiate_softmax(r, x, logsumexp[r]);
    if (p.key.data) {
      sum_windows(w.to_logits, w.keys, y0, rows, x);
    } else {
      std::fill_n(w.result, p.head_dim * row_lanes, 0.0f);
    }
    add_table(w.to_lines, rows_table, g.n_rows, w.result);
    add_table(w.to_columns, columns_table, g.n_columns, w.result + half_dim * row_lanes);
    add_to_table(w.to_lines, w.query, g.n_rows, rows, p.grad_rows ? w.grad_rows_table : nullptr);
    add_to_table(w.to_columns, w.query + half_dim * row_lanes, g.n_columns, rows,
                 p.grad_columns ? w.grad_columns_table : nullptr);
    write_tile(y0, rows, x, p.head_dim, p.scale, p.grad_query);
  }

  // From logits and the gradients of the weights to weights and the gradients of the logits, for one row of a
  // tile; both go to the buffers of whole lines too.
  void differentiate_softmax(int64_t r, int64_t x, Floats logsumexp) const {
    float *weights = w.weights + r * window * lanes, *to_logits = w.to_logits + r * window * lanes;
    const int64_t line = r * window * g.pitch + g.radius_x + x;
    float *line_weights = w.line_weights + line, *line_to_logits = w.line_to_logits + line;
    Floats sum = {}, mean = {};
    for (int64_t i = 0; i < window; ++i) {
      const Floats e = exp2(load(weights + i * lanes) - logsumexp);
      store(weights + i * lanes, e);
      sum += e, mean += e * load(to_logits + i * lanes);
    }
    // The sum is one up to the rounding of the logits, which would otherwise go into the gradients.
    const Floats norm = (Floats)((Ints)(1.0f / sum) & (sum != 0.0f));
    mean *= norm;
    for (int64_t i = 0; i < window; ++i) {
      const Floats weight = load(weights + i * lanes) * norm;
      const Floats d = weight * (load(to_logits + i * lanes) - mean);
      store(to_logits + i * lanes, d);
      store_pixels<Halves>(line_weights + i * g.pitch, g.half_pitch, weight);
      store_pixels<Halves>(line_to_logits + i * g.pitch, g.half_pitch, d);
    }
    sum_to_table(to_logits, g.n_rows, g.n_columns, 1, rows_table ? w.to_lines + r * lanes : nullptr);
    sum_to_table(to_logits, g.n_columns, 1, g.n_columns, columns_table ? w.to_columns + r * lanes : nullptr);
  }

  // out[entry] = sum of the window's logits that the entry of a table is part of.
  void sum_to_table(const float* to_logits, int64_t entries, int64_t entry, int64_t step, float* out) const {
    if (!out) return;
    const int64_t count = window / entries;
    for (int64_t e = 0; e < entries; ++e) {
      Floats sum = {};
      for (int64_t i = 0; i < count; ++i) sum += load(to_logits + (e * entry + i * step) * lanes);
      store(out + e * tile_rows * lanes, sum);
    }
  }

  // result[channel][row] += table[entry][channel] * to[entry][row], summed over the entries.
  void add_table(const float* to, const float* table, int64_t entries, float* result) const {
    if (!table) return;
    for (int64_t c = 0; c < half_dim; ++c, result += tile_rows * lanes) {
      Floats acc[tile_rows];
      for (int r = 0; r < tile_rows; ++r) acc[r] = load(result + r * lanes);
      for (int64_t e = 0; e < entries; ++e)
        for (int r = 0; r < tile_rows; ++r)
          acc[r] += load(to + (e * tile_rows + r) * lanes) * table[e * half_dim + c];
      for (int r = 0; r < tile_rows; ++r) store(result + r * lanes, acc[r]);
    }
  }

  // table[entry][channel] += to[entry][row] * query[channel][row], summed over the rows.
  void add_to_table(const float* to, const float* query, int64_t entries, int64_t rows, float* table) const {
    if (!table) return;
    for (int64_t e = 0; e < entries; ++e)
      for (int64_t c = 0; c < half_dim; ++c, table += lanes) {
        Floats acc = load(table);
        for (int64_t r = 0; r < rows; ++r)
          acc += load(to + (e * tile_rows + r) * lanes) * load(query + (c * tile_rows + r) * lanes);
        store(table, acc);
      }
  }

  // Add what a tile of whole lines sends to the pixels that its windows see: factors times vectors of the plane.
  void spread(const float* factors, const Plane& plane, float* sums, int64_t y0, int64_t rows) const {
    const int64_t begin = Halves == 2 ? y0 - g.radius_y : std::max<int64_t>(0, y0 - g.radius_y);
    const int64_t end = Halves == 2 ? y0 + rows + g.radius_y : std::min(g.lines, y0 + rows + g.radius_y);
    for (int64_t y = begin; y < end; y += tile_rows) {
      const int64_t count = std::min<int64_t>(tile_rows, end - y);
      int64_t c = 0;
      for (; c + kChannels <= plane.dim; c += kChannels)
        spread_channels<kChannels>(factors, plane, sums, y0, rows, y, count, c);
      for (; c < plane.dim; ++c) spread_channels<1>(factors, plane, sums, y0, rows, y, count, c);
    }
  }

  template <int Channels>
  void spread_channels(const float* factors, const Plane& plane, float* sums, int64_t y0, int64_t rows, int64_t y,
                       int64_t count, int64_t channel) const {
    const int64_t width = g.vectors * lanes;
    for (int64_t n = 0; n < g.vectors; ++n) {
      const int64_t x = n * g.half_lanes + 2 * g.radius_x;  // the query that sees this pixel as its first
      float* at = sums + ((y + g.radius_y) * plane.dim + channel) * width + n * lanes;
      Floats acc[tile_rows][Channels] = {};
      for (int64_t i = 0; i < count; ++i)
        for (int c = 0; c < Channels; ++c) acc[i][c] = load(at + (i * plane.dim + c) * width);
      for (int64_t r = 0; r < rows; ++r) {
        const int64_t row = y0 + r - g.radius_y - y;  // where this query's window begins
        const int64_t first = std::max<int64_t>(0, row), last = std::min(count - 1, row + g.n_rows - 1);
        if (first > last) continue;
        Walk walk;
        walk.weight = factors + (r * window + (first - row) * g.n_columns) * g.pitch + x;
        walk.weight_row = g.n_columns * g.pitch, walk.weight_step = g.pitch - 1, walk.weight_half = g.half_pitch;
        walk.value = plane.line(y0 + r) + channel * g.pitch + x;
        walk.value_channel = g.pitch, walk.value_step = -1, walk.value_half = g.half_pitch;
        walk.count = g.n_columns;
        accumulate_rows<Channels, Halves>(acc, first, last - first + 1, walk);
      }
      for (int64_t i = 0; i < count; ++i)
        for (int c = 0; c < Channels; ++c) store(at + (i * plane.dim + c) * width, acc[i][c]);
    }
  }

};

void sum_tables(const Problem& p, const Geometry& g, const Workspace& w, int64_t task) {
  const int64_t half_dim = p.head_dim / 2;
  const int64_t in_rows = g.n_rows * half_dim, in_columns = g.n_columns * half_dim;
  if (p.grad_rows)
    for (int64_t i = 0; i < in_rows; ++i)
      p.grad_rows[task * in_rows + i] = kLn2 * sum_lanes(load(w.grad_rows_table + i * lanes));
  if (p.grad_columns)
    for (int64_t i = 0; i < in_columns; ++i)
      p.grad_columns[task * in_columns + i] = kLn2 * sum_lanes(load(w.grad_columns_table + i * lanes));
}

template <int Halves>
void run_head(const Problem& p, const Geometry& g, Workspace& w, int64_t task, bool backward) {
  Head<Halves> head(p, g, w, task);
  backward ? head.backward() : head.forward();
}

void run(const Problem& p, int64_t first, int64_t last, bool backward) {
  if (first >= last || p.height == 0 || p.width == 0) return;
  Workspace w;
  Geometry current(p, 0, 0);
  w.prepare(p, current, backward);
  if (backward) w.prepare_tables(p);
  const bool phases = p.dilation_height * p.dilation_width > 1;
  int64_t masked_image = -1;
  for (int64_t task = first; task < last; ++task) {
    if (backward) w.clear_tables(p);
    for (int64_t phase_y = 0; phase_y < std::min(p.dilation_height, p.height); ++phase_y)
      for (int64_t phase_x = 0; phase_x < std::min(p.dilation_width, p.width); ++phase_x) {
        const Geometry g(p, phase_y, phase_x);
        if (!(g == current)) w.prepare(p, g, backward);
        current = g;
        const int64_t image = task / p.heads;
        if (!p.zeros_border && (masked_image < 0 || phases || (p.padding && masked_image != image)))
          fill_mask(p, g, w.mask, masked_image = image);
        g.halves == 1 ? run_head<1>(p, g, w, task, backward) : run_head<2>(p, g, w, task, backward);
      }
    if (backward) sum_tables(p, current, w, task);
  }
}

void run_forward(const Problem& p, int64_t first, int64_t last) { run(p, first, last, false); }
void run_backward(const Problem& p, int64_t first, int64_t last) { run(p, first, last, true); }

}  // namespace
}  // namespace LOOKAROUND_ISA

#define LOOKAROUND_JOIN(a, b) a##b
#define LOOKAROUND_NAME(isa) LOOKAROUND_JOIN(kernel_, isa)
#define LOOKAROUND_TEXT(isa) LOOKAROUND_TEXT_OF(isa)
#define LOOKAROUND_TEXT_OF(isa) #isa

extern const Kernel LOOKAROUND_NAME(LOOKAROUND_ISA);
const Kernel LOOKAROUND_NAME(LOOKAROUND_ISA) = {
    LOOKAROUND_TEXT(LOOKAROUND_ISA),
    LOOKAROUND_ISA::is_supported,
    LOOKAROUND_ISA::run_forward,
    LOOKAROUND_ISA::run_backward,
    LOOKAROUND_ISA::run_blocks_forward,
    LOOKAROUND_ISA::run_blocks_backward,
    LOOKAROUND_ISA::run_moments,
    LOOKAROUND_ISA::run_normalize,
    LOOKAROUND_ISA::run_sum_gradients,
    LOOKAROUND_ISA::run_differentiate,
};

}  // namespace lookaround
