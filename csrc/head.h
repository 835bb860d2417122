// One head of one image in one phase: how its tensors are read and written.

#pragma once

#include <algorithm>
#include <limits>

#include "kernel.h"
#include "layout.h"
#include "simd.h"
#include "transpose.h"

namespace lookaround {
namespace LOOKAROUND_ISA {
namespace {

constexpr float kLog2e = 1.4426950408889634f, kLn2 = 0.6931471805599453f;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

class HeadTensors {
 public:
  HeadTensors(const Problem& problem, const Geometry& geometry, Workspace& workspace, int64_t task)
      : p(problem), g(geometry), w(workspace), image(task / p.heads), head(task % p.heads) {
    const bool is_float = p.dtype == Dtype::float32;
    gather = is_float ? gather_pixels<float> : gather_pixels<Bfloat16>;
    copy = is_float ? copy_channels<float> : copy_channels<Bfloat16>;
    scatter = is_float ? scatter_pixels<float> : scatter_pixels<Bfloat16>;
    element_bytes = is_float ? 4 : 2;
  }

 protected:
  const Problem& p;
  const Geometry& g;
  Workspace& w;
  const int64_t image, head;
  int64_t element_bytes;
  void (*gather)(const void*, int64_t, int64_t, int64_t, float, float*, int64_t, int64_t);
  void (*copy)(const void*, int64_t, int64_t, int64_t, int64_t, float, float*, int64_t);
  void (*scatter)(const float*, int64_t, int64_t, int64_t, float, void*, int64_t);

  const bool* padding_row(int64_t row) const {
    return p.padding ? p.padding + (image * p.height + g.row0 + row * g.row_step) * p.width + g.column0 : nullptr;
  }
  // Pixel x of a row of the phase.
  void* pixel(const View& view, int64_t row, int64_t x) const {
    const int64_t offset = image * view.batch + (g.row0 + row * g.row_step) * view.height +
                           (g.column0 + x * g.column_step) * view.width + head * view.head;
    return static_cast<char*>(view.data) + offset * element_bytes;
  }
  bool is_row(int64_t row) const { return row >= 0 && row < g.height; }

  // Pixels x to x + count of a row, as channels of pixels. The next call reads `ahead` elements further on.
  void read(const View& view, int64_t row, int64_t x, int64_t count, int64_t dim, float factor, float* to,
            int64_t channel, int64_t ahead) const {
    const int64_t step = view.width * g.column_step;
    if (view.channel == 1) {
      gather(pixel(view, row, x), step, count, dim, factor, to, channel, ahead);
    } else {
      copy(pixel(view, row, x), view.channel, step, count, dim, factor, to, channel);
    }
  }

  void fill(const Plane& plane, const View& view, float factor) const {
    if (plane.dim == 0) return;
    for (int64_t line = -g.radius_y; line < g.lines + g.radius_y; ++line)
      for (int64_t half = 0; half < g.halves; ++half) {
        const int64_t row = g.row(line, half);
        if (!is_row(row)) continue;
        float* to = plane.line(line) + half * g.half_pitch + g.radius_x;
        read(view, row, 0, g.width, plane.dim, factor, to, g.pitch, view.height * g.row_step);
        clear_padding(row, to, g.pitch, plane.dim, 0, g.width);
      }
  }

  // Makes channels 2c and 2c+1 of a filled plane its pair c, in place.
  void pair_channels(const Plane& plane) const {
    for (int64_t line = -g.radius_y; line < g.lines + g.radius_y; ++line)
      for (int64_t c = 0; c < plane.dim / 2; ++c) {
        const float *low = plane.line(line) + 2 * c * g.pitch, *high = low + g.pitch;
        float* to = plane.line(line) + c * g.pitch;
        int64_t i = 0;
        for (; i + lanes <= g.pitch; i += lanes) store(to + i, pack_pairs(load(low + i), load(high + i)));
        for (; i < g.pitch; ++i) to[i] = pack_pairs(broadcast(low[i]), broadcast(high[i]))[0];
      }
  }

  // Pairs of channels of a tile's query, as in bfloat16; then the query itself takes its factor.
  void pair_query(float factor) const {
    const int64_t row_lanes = tile_rows * lanes;
    for (int64_t c = 0; c < p.head_dim / 2; ++c)
      for (int64_t i = 0; i < row_lanes; i += lanes) {
        float *low = w.query + 2 * c * row_lanes + i, *high = low + row_lanes;
        store(w.pairs + c * row_lanes + i, pack_pairs(load(low), load(high)));
        store(low, load(low) * factor), store(high, load(high) * factor);
      }
  }

  // Whatever a padded pixel holds, NaN included, must reach nothing.
  void clear_padding(int64_t row, float* to, int64_t channel, int64_t dim, int64_t x0, int64_t count) const {
    const bool* padding = padding_row(row);
    if (!padding) return;
    for (int64_t x = 0; x < count; ++x)
      if (padding[(x0 + x) * g.column_step])
        for (int64_t c = 0; c < dim; ++c) to[c * channel + x] = 0.0f;
  }

  // Query vectors of a tile, times a factor: dim row lane.
  void gather_query(int64_t y0, int64_t rows, int64_t x, float factor) const {
    const int64_t count = std::min(g.half_lanes, g.width - x);
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t half = 0; half < g.halves; ++half) {
        const int64_t row = g.row(y0 + r, half);
        if (!is_row(row)) continue;
        float* to = w.query + r * lanes + half * g.half_lanes;
        read(p.query, row, x, count, p.head_dim, factor, to, tile_rows * lanes,
             count * p.query.width * g.column_step);
        clear_padding(row, to, tile_rows * lanes, p.head_dim, x, count);
      }
  }

  void write_tile(int64_t y0, int64_t rows, int64_t x, int64_t dim, float factor, const View& view) const {
    const int64_t count = std::min(g.half_lanes, g.width - x);
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t half = 0; half < g.halves; ++half) {
        const int64_t row = g.row(y0 + r, half);
        if (!is_row(row)) continue;
        float* from = w.result + r * lanes + half * g.half_lanes;
        clear_padding(row, from, tile_rows * lanes, dim, x, count);
        scatter(from, tile_rows * lanes, count, dim, factor, pixel(view, row, x), view.width * g.column_step);
      }
  }

  float* logsumexp_row(int64_t row) const {
    const int64_t plane = (image * p.heads + head) * p.height;
    return p.logsumexp + (plane + g.row0 + row * g.row_step) * p.width + g.column0;
  }

  void write_logsumexp(int64_t y0, int64_t rows, int64_t x, const Floats* values) const {
    const int64_t count = std::min(g.half_lanes, g.width - x);
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t half = 0; half < g.halves; ++half) {
        const int64_t row = g.row(y0 + r, half);
        if (!is_row(row)) continue;
        const bool* padding = padding_row(row);
        float* to = logsumexp_row(row) + x * g.column_step;
        for (int64_t i = 0; i < count; ++i) {
          const bool padded = padding && padding[(x + i) * g.column_step];
          to[i * g.column_step] = padded ? kInfinity : values[r][half * g.half_lanes + i];
        }
      }
  }

  // In units of ln 2; infinite where there is no query, so that its weights are zero.
  Floats read_logsumexp(int64_t y, int64_t x) const {
    const int64_t count = std::min(g.half_lanes, g.width - x);
    Floats values = broadcast(kInfinity);
    for (int64_t half = 0; half < g.halves; ++half) {
      const int64_t row = g.row(y, half);
      if (!is_row(row)) continue;
      const float* from = logsumexp_row(row) + x * g.column_step;
      for (int64_t i = 0; i < count; ++i) values[half * g.half_lanes + i] = from[i * g.column_step] * kLog2e;
    }
    return values;
  }

  // A row of the image may lie in both halves; its gradient is the sum.
  void write_plane(const float* sums, int64_t dim, float factor, const View& view) const {
    const int64_t width = g.vectors * lanes;
    for (int64_t row = 0; row < g.height; ++row) {
      std::fill_n(w.sum, dim * width, 0.0f);
      for (int64_t half = 0; half < g.halves; ++half) {
        const int64_t line = row - half * g.lines;
        if (line < -g.radius_y || line >= g.lines + g.radius_y) continue;
        const float* from = sums + (line + g.radius_y) * dim * width + half * g.half_lanes;
        for (int64_t c = 0; c < dim; ++c)
          for (int64_t x = 0; x < g.width; ++x) w.sum[c * width + x] += from[c * width + x];
      }
      clear_padding(row, w.sum, width, dim, 0, g.width);
      scatter(w.sum, width, g.width, dim, factor, pixel(view, row, 0), view.width * g.column_step);
    }
  }
};

// 0 for pixels that exist, minus infinity for those that do not.
void fill_mask(const Problem& p, const Geometry& g, const Plane& mask, int64_t image) {
  for (int64_t line = -g.radius_y; line < g.lines + g.radius_y; ++line)
    for (int64_t half = 0; half < g.halves; ++half) {
      const int64_t row = g.row(line, half);
      const int64_t whole_row = (image * p.height + g.row0 + row * g.row_step) * p.width + g.column0;
      float* to = mask.line(line) + half * g.half_pitch;
      for (int64_t i = 0; i < g.half_pitch; ++i) {
        const int64_t x = i - g.radius_x;
        const bool inside = row >= 0 && row < g.height && x >= 0 && x < g.width;
        const bool exists = inside && !(p.padding && p.padding[whole_row + x * g.column_step]);
        to[i] = exists ? 0.0f : -kInfinity;
      }
    }
}

}  // namespace
}  // namespace LOOKAROUND_ISA
}  // namespace lookaround
