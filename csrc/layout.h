// How an image is laid out for the kernel: phases, planes, and the memory of one thread.

#pragma once

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>

#include "kernel.h"
#include "simd.h"

namespace lookaround {
namespace LOOKAROUND_ISA {
namespace {

// One phase of one call's image, and how it is laid out in planes.
struct Geometry {
  int64_t height, width;                         // of the phase
  int64_t row0, column0, row_step, column_step;  // its place in the image
  int64_t n_rows, n_columns;                     // of the window
  int64_t radius_y, radius_x;
  int64_t halves, half_lanes;  // lines in one vector, and pixels of each
  int64_t lines, vectors;      // query lines, and vectors in a line
  int64_t half_pitch, pitch;   // floats between the halves of a plane's line, and between its channels

  Geometry(const Problem& p, int64_t phase_y, int64_t phase_x) {
    row0 = phase_y, column0 = phase_x, row_step = p.dilation_height, column_step = p.dilation_width;
    height = (p.height - row0 + row_step - 1) / row_step;
    width = (p.width - column0 + column_step - 1) / column_step;
    n_rows = p.kernel_height, n_columns = p.kernel_width;
    radius_y = n_rows / 2, radius_x = n_columns / 2;
    halves = lanes >= 8 && width <= lanes / 2 && height > 1 ? 2 : 1;
    half_lanes = lanes / halves;
    lines = (height + halves - 1) / halves;
    vectors = (width + half_lanes - 1) / half_lanes;
    half_pitch = vectors * half_lanes + 2 * radius_x;
    pitch = halves * half_pitch;
  }
  int64_t row(int64_t line, int64_t half) const { return line + half * lines; }
  int64_t plane_lines() const { return lines + 2 * radius_y; }
  bool operator==(const Geometry& o) const { return height == o.height && width == o.width; }
};

// Lines of channels of pixels: line -radius_y is the first, pixel -radius_x the first of each half.
struct Plane {
  float* data = nullptr;
  int64_t dim = 0, pitch = 0, radius_y = 0;
  float* line(int64_t y) const { return data + (y + radius_y) * dim * pitch; }
};

struct Free {
  void operator()(float* p) const { std::free(p); }
};

// Zeroed memory, cut into arrays: once to count, once in earnest.
class Arena {
 public:
  float* cut(int64_t floats) {
    float* p = memory_ ? memory_.get() + used_ : nullptr;
    used_ += (floats + 2 * lanes + 15) / 16 * 16;  // a vector may be read past the end
    return p;
  }
  void reset() { memory_.reset(), used_ = 0; }
  void allocate() {
    const int64_t size = used_;
    used_ = 0;
    memory_.reset(static_cast<float*>(std::aligned_alloc(64, (size * 4 + 63) / 64 * 64)));
    if (!memory_) throw std::bad_alloc();
    std::fill_n(memory_.get(), size, 0.0f);
  }

 private:
  std::unique_ptr<float, Free> memory_;
  int64_t used_ = 0;
};

// Memory of one thread, laid out for one geometry.
struct Workspace {
  Arena arena, table_arena;
  Plane keys, values, queries, gradients, mask;  // queries and gradients in the backward pass only
  float *query, *pairs, *result, *lines, *columns;       // of one tile: dim row lane, offset row lane
  float *weights, *to_logits;                    // of one tile: row offset_y offset_x lane
  // Backward pass.
  float *line_weights, *line_to_logits;           // of whole lines: row offset_y offset_x pixel
  float *grad_keys, *grad_values;                 // line channel pixel
  float *gradient, *to_lines, *to_columns, *sum;  // as query, lines and columns; one output line
  float *grad_rows_table, *grad_columns_table;    // entry channel lane; these outlive a change of the geometry

  void prepare(const Problem& p, const Geometry& g, bool backward) {
    arena.reset();
    cut(p, g, backward);
    arena.allocate();
    cut(p, g, backward);
  }

  void prepare_tables(const Problem& p) {
    for (int pass = 0; pass < 2; ++pass) {
      grad_rows_table = table_arena.cut(p.kernel_height * p.head_dim * lanes);
      grad_columns_table = table_arena.cut(p.kernel_width * p.head_dim * lanes);
      if (pass == 0) table_arena.allocate();
    }
  }

  void clear_tables(const Problem& p) {
    std::fill_n(grad_rows_table, p.kernel_height * p.head_dim * lanes, 0.0f);
    std::fill_n(grad_columns_table, p.kernel_width * p.head_dim * lanes, 0.0f);
  }

 private:
  void cut(const Problem& p, const Geometry& g, bool backward) {
    const int64_t window = g.n_rows * g.n_columns, most = std::max(p.head_dim, p.value_dim);
    const int64_t n_lines = g.plane_lines(), row_lanes = tile_rows * lanes;
    auto plane = [&](int64_t dim) {
      return Plane{arena.cut(n_lines * dim * g.pitch), dim, g.pitch, g.radius_y};
    };
    keys = plane(p.key.data ? p.head_dim : 0), values = plane(p.value_dim), mask = plane(1);
    pairs = arena.cut(has_pair_products ? p.head_dim / 2 * row_lanes : 0);
    query = arena.cut(p.head_dim * row_lanes), result = arena.cut(most * row_lanes);
    lines = arena.cut(g.n_rows * row_lanes), columns = arena.cut(g.n_columns * row_lanes);
    weights = arena.cut(tile_rows * window * lanes);
    if (!backward) return;
    queries = plane(p.head_dim), gradients = plane(p.value_dim);
    to_logits = arena.cut(tile_rows * window * lanes);
    line_weights = arena.cut(tile_rows * window * g.pitch);
    line_to_logits = arena.cut(tile_rows * window * g.pitch);
    gradient = arena.cut(p.value_dim * row_lanes), sum = arena.cut(most * lanes * g.vectors);
    to_lines = arena.cut(g.n_rows * row_lanes), to_columns = arena.cut(g.n_columns * row_lanes);
    grad_keys = arena.cut(n_lines * keys.dim * g.vectors * lanes);
    grad_values = arena.cut(n_lines * p.value_dim * g.vectors * lanes);
  }
};

}  // namespace
}  // namespace LOOKAROUND_ISA
}  // namespace lookaround
