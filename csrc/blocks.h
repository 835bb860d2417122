// Attention inside the blocks of an image, for the stem: few channels in, many out.
//
// The lanes of a vector are neighbouring blocks. Every product has constants or vectors of a few kilobytes as its
// operands, so that a row of blocks is read once and written once.

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

// One row of blocks of one image. Buffers are written as their index order: X[place][channel][lane].
class BlockRow {
 public:
  BlockRow(const BlockProblem& problem, Arena& arena) : p(problem), places(p.size * p.size) {
    for (int pass = 0; pass < 2; ++pass) {
      X = arena.cut(places * p.channels * lanes), Y = arena.cut(places * p.channels * lanes);
      V = arena.cut(places * p.head_dim * lanes), O = arena.cut(places * p.head_dim * lanes);
      weights = arena.cut(places * places * lanes);
      to_weights = arena.cut(p.grad_out ? places * places * lanes : 0);
      to_form = arena.cut(p.channels * p.channels * lanes);
      to_maps = arena.cut(places * p.head_dim * p.channels * lanes);
      sums = arena.cut(p.moments ? 2 * p.heads * p.head_dim * lanes : 0);
      reduced = arena.cut(p.head_dim * lanes);
      if (pass == 0) arena.allocate();
    }
  }

  void forward(int64_t task) {
    begin(task);
    if (p.moments) std::fill_n(sums, 2 * p.heads * p.head_dim * lanes, 0.0f);
    for (int64_t x = 0; x < blocks_x; x += lanes) {
      read_pixels(x);
      for (int64_t head = 0; head < p.heads; ++head) {
        weigh(head), map_values(head);
        multiply(weights, places, 1, V, p.head_dim, O);
        if (p.moments) {
          write_reduced<true>(x, head, p.largest), write_reduced<false>(x, head, p.smallest), add_moments(head);
        } else {
          p.pooled ? write_reduced<true>(x, head, p.out) : write_places(x, head);
        }
      }
    }
    if (p.moments)
      for (int64_t i = 0; i < 2 * p.heads * p.head_dim; ++i)
        p.moments[task * 2 * p.heads * p.head_dim + i] = sum_lanes(load(sums + i * lanes));
  }

  void backward(int64_t task) {
    begin(task);
    for (int64_t head = 0; head < p.heads; ++head) {
      std::fill_n(to_form, p.channels * p.channels * lanes, 0.0f);
      std::fill_n(to_maps, places * p.head_dim * p.channels * lanes, 0.0f);
      for (int64_t x = 0; x < blocks_x; x += lanes) {
        read_pixels(x), weigh(head), map_values(head);
        p.scale ? make_gradient(x, head) : read_gradient(x, head);
        differentiate_weights();
        multiply(weights, 1, places, O, p.head_dim, V);  // from here on V holds the gradient of the values
        add_gradients();
      }
      write_gradients(task, head);
    }
  }

 private:
  const BlockProblem& p;
  const int64_t places;
  int64_t image, block_y, blocks_x, blocks;  // blocks: in the current vector
  float *X, *Y, *V, *O, *weights, *to_weights, *to_form, *to_maps, *sums, *reduced;
  int64_t exists[kMostPlaces];  // blocks of the current vector that have each place

  void begin(int64_t task) {
    const int64_t blocks_y = (p.height + p.size - 1) / p.size;
    blocks_x = (p.width + p.size - 1) / p.size;
    image = task / blocks_y, block_y = task % blocks_y;
  }
  int64_t row(int64_t place) const { return block_y * p.size + place / p.size; }
  int64_t column(int64_t place, int64_t block_x) const { return block_x * p.size + place % p.size; }
  // Blocks from block_x on, of one vector, that have this place.
  int64_t count(int64_t place, int64_t block_x) const {
    if (row(place) >= p.height) return 0;
    const int64_t with = (p.width - place % p.size + p.size - 1) / p.size;
    return std::clamp<int64_t>(with - block_x, 0, lanes);
  }

  void read_pixels(int64_t x) {
    blocks = std::min<int64_t>(lanes, blocks_x - x);
    std::fill_n(X, places * p.channels * lanes, 0.0f);
    for (int64_t place = 0; place < places; ++place) {
      const int64_t n = exists[place] = count(place, x);
      if (n == 0) continue;
      const float* from = p.pixels + image * p.pixel_strides[0] + row(place) * p.pixel_strides[1] +
                          column(place, x) * p.pixel_strides[2];
      for (int64_t c = 0; c < p.channels; ++c)
        for (int64_t i = 0; i < n; ++i)
          X[(place * p.channels + c) * lanes + i] = from[c * p.pixel_strides[3] + i * p.size * p.pixel_strides[2]];
    }
  }

  // Softmax over the places of a block, of the bilinear form of one head.
  void weigh(int64_t head) {
    const float* form = p.form + head * p.channels * p.channels;
    const Ints lane = lane_numbers();
    for (int64_t i = 0; i < places; ++i)
      for (int64_t d = 0; d < p.channels; ++d) {
        Floats sum = {};
        for (int64_t c = 0; c < p.channels; ++c) sum += load(X + (i * p.channels + c) * lanes) * form[c * p.channels + d];
        store(Y + (i * p.channels + d) * lanes, sum * 1.4426950408889634f);
      }
    for (int64_t i = 0; i < places; ++i) {
      float* line = weights + i * places * lanes;
      Floats peak = broadcast(-3e38f), total = {};
      for (int64_t j = 0; j < places; ++j) {
        Floats logit = {};
        for (int64_t c = 0; c < p.channels; ++c)
          logit += load(Y + (i * p.channels + c) * lanes) * load(X + (j * p.channels + c) * lanes);
        if (exists[j] < blocks) {
          const Ints here = lane < static_cast<int32_t>(exists[j]);
          logit = (Floats)(((Ints)logit & here) | ((Ints)broadcast(-std::numeric_limits<float>::infinity()) & ~here));
        }
        store(line + j * lanes, logit);
        peak = maximum(peak, logit);
      }
      for (int64_t j = 0; j < places; ++j) {
        const Floats e = exp2(load(line + j * lanes) - peak);
        store(line + j * lanes, e);
        total += e;
      }
      const Floats norm = (Floats)((Ints)(1.0f / total) & (total != 0.0f));
      for (int64_t j = 0; j < places; ++j) store(line + j * lanes, load(line + j * lanes) * norm);
    }
  }

  void map_values(int64_t head) {
    for (int64_t j = 0; j < places; ++j) {
      const float* map = p.maps + (j * p.heads + head) * p.head_dim * p.channels;
      for (int64_t o = 0; o < p.head_dim; ++o, map += p.channels) {
        Floats sum = {};
        for (int64_t c = 0; c < p.channels; ++c) sum += load(X + (j * p.channels + c) * lanes) * map[c];
        store(V + (j * p.head_dim + o) * lanes, sum);
      }
    }
  }

  // out[a][o] = sum over b of factor(a, b) in[b][o]; factor(a, b) lies at (a * of_a + b * of_b).
  void multiply(const float* factor, int64_t of_a, int64_t of_b, const float* in, int64_t dim, float* out) {
    constexpr int rows = tile_rows, columns = 4;
    for (int64_t a = 0; a < places; a += rows)
      for (int64_t o = 0; o < dim; o += columns) {
        Floats acc[rows][columns] = {};
        const int64_t some_rows = std::min<int64_t>(rows, places - a), some = std::min<int64_t>(columns, dim - o);
        if (some_rows == rows && some == columns) {
          for (int64_t b = 0; b < places; ++b) {
            Floats f[rows];
            for (int i = 0; i < rows; ++i) f[i] = load(factor + ((a + i) * of_a + b * of_b) * lanes);
            for (int j = 0; j < columns; ++j) {
              const Floats v = load(in + (b * dim + o + j) * lanes);
              for (int i = 0; i < rows; ++i) acc[i][j] += f[i] * v;
            }
          }
        } else {
          for (int64_t b = 0; b < places; ++b)
            for (int64_t i = 0; i < some_rows; ++i)
              for (int64_t j = 0; j < some; ++j)
                acc[i][j] += load(factor + ((a + i) * of_a + b * of_b) * lanes) * load(in + (b * dim + o + j) * lanes);
        }
        for (int64_t i = 0; i < some_rows; ++i)
          for (int64_t j = 0; j < some; ++j) store(out + ((a + i) * dim + o + j) * lanes, acc[i][j]);
      }
  }

  void write_places(int64_t x, int64_t head) {
    for (int64_t place = 0; place < places; ++place) {
      const int64_t n = count(place, x), outputs = p.heads * p.head_dim;
      float* to = p.out + ((image * p.height + row(place)) * p.width + column(place, x)) * outputs + head * p.head_dim;
      if (n > 0) scatter_pixels<float>(O + place * p.head_dim * lanes, lanes, n, p.head_dim, 1.0f, to, p.size * outputs);
    }
  }

  Floats keep_existing(int64_t place, Floats x, Floats otherwise) const {
    const Ints here = lane_numbers() < static_cast<int32_t>(exists[place]);
    return (Floats)(((Ints)x & here) | ((Ints)otherwise & ~here));
  }

  // The largest or smallest output of each block.
  template <bool Largest>
  Floats reduce(int64_t o) const {
    Floats peak = load(O + o * lanes);  // the first place of a block always exists
    for (int64_t place = 1; place < places; ++place) {
      const Floats x = load(O + (place * p.head_dim + o) * lanes);
      peak = keep_existing(place, Largest ? maximum(peak, x) : minimum(peak, x), peak);
    }
    return peak;
  }

  float* block(float* image_of_blocks, int64_t x, int64_t head) const {
    const int64_t outputs = p.heads * p.head_dim, blocks_y = (p.height + p.size - 1) / p.size;
    return image_of_blocks + ((image * blocks_y + block_y) * blocks_x + x) * outputs + head * p.head_dim;
  }

  template <bool Largest>
  void write_reduced(int64_t x, int64_t head, float* out) {
    for (int64_t o = 0; o < p.head_dim; ++o) store(reduced + o * lanes, reduce<Largest>(o));
    scatter_pixels<float>(reduced, lanes, blocks, p.head_dim, 1.0f, block(out, x, head), p.heads * p.head_dim);
  }

  void add_moments(int64_t head) {
    for (int64_t o = 0; o < p.head_dim; ++o) {
      float* at = sums + (head * p.head_dim + o) * lanes;
      float* squares_at = at + p.heads * p.head_dim * lanes;
      Floats sum = load(at), squares = load(squares_at);
      for (int64_t place = 0; place < places; ++place) {
        const Floats x = keep_existing(place, load(O + (place * p.head_dim + o) * lanes), Floats{});
        sum += x, squares += x * x;
      }
      store(at, sum), store(squares_at, squares);
    }
  }

  // The gradient of every output, from that of each block's extreme after a batch norm.
  void make_gradient(int64_t x, int64_t head) {
    multiply(weights, places, 1, V, p.head_dim, O);
    std::fill_n(reduced, p.head_dim * lanes, 0.0f);
    gather_pixels<float>(block(const_cast<float*>(p.grad_out), x, head), p.heads * p.head_dim, blocks, p.head_dim, 1.0f,
                         reduced, lanes, 0);
    for (int64_t o = 0; o < p.head_dim; ++o) {
      const int64_t k = head * p.head_dim + o;
      const Floats extreme = p.scale[k] >= 0.0f ? reduce<true>(o) : reduce<false>(o);
      const Floats gradient = load(reduced + o * lanes) * p.scale[k];
      Ints open = lane_numbers() < static_cast<int32_t>(blocks);  // blocks whose extreme is still to be found
      for (int64_t place = 0; place < places; ++place) {
        float* at = O + (place * p.head_dim + o) * lanes;
        const Floats value = load(at);
        const Ints found = (Ints)(value == extreme) & open & (lane_numbers() < static_cast<int32_t>(exists[place]));
        open &= ~found;
        const Floats g = (Floats)((Ints)gradient & found) + value * p.slope[k] + p.offset[k];
        store(at, keep_existing(place, g, Floats{}));
      }
    }
  }

  void read_gradient(int64_t x, int64_t head) {
    std::fill_n(O, places * p.head_dim * lanes, 0.0f);
    const int64_t outputs = p.heads * p.head_dim;
    for (int64_t place = 0; place < places; ++place) {
      const int64_t n = count(place, x);
      const float* from =
          p.grad_out + ((image * p.height + row(place)) * p.width + column(place, x)) * outputs + head * p.head_dim;
      if (n > 0)
        gather_pixels<float>(from, p.size * outputs, n, p.head_dim, 1.0f, O + place * p.head_dim * lanes, lanes, 0);
    }
  }

  // to_weights becomes the gradient of the logits.
  void differentiate_weights() {
    for (int64_t i = 0; i < places; ++i) {
      Floats mean = {};
      for (int64_t j = 0; j < places; ++j) {
        Floats sum = {};
        for (int64_t o = 0; o < p.head_dim; ++o)
          sum += load(O + (i * p.head_dim + o) * lanes) * load(V + (j * p.head_dim + o) * lanes);
        store(to_weights + (i * places + j) * lanes, sum);
        mean += sum * load(weights + (i * places + j) * lanes);
      }
      for (int64_t j = 0; j < places; ++j) {
        float* at = to_weights + (i * places + j) * lanes;
        store(at, load(weights + (i * places + j) * lanes) * (load(at) - mean));
      }
    }
  }

  void add_gradients() {
    multiply(to_weights, places, 1, X, p.channels, Y);
    for (int64_t c = 0; c < p.channels; ++c)
      for (int64_t d = 0; d < p.channels; ++d) {
        float* at = to_form + (c * p.channels + d) * lanes;
        Floats sum = load(at);
        for (int64_t i = 0; i < places; ++i)
          sum += load(X + (i * p.channels + c) * lanes) * load(Y + (i * p.channels + d) * lanes);
        store(at, sum);
      }
    float* at = to_maps;
    for (int64_t j = 0; j < places; ++j)
      for (int64_t o = 0; o < p.head_dim; ++o) {
        const Floats v = load(V + (j * p.head_dim + o) * lanes);
        for (int64_t c = 0; c < p.channels; ++c, at += lanes)
          store(at, load(at) + v * load(X + (j * p.channels + c) * lanes));
      }
  }

  void write_gradients(int64_t task, int64_t head) {
    const int64_t size = p.channels * p.channels, map_size = p.head_dim * p.channels;
    float* form = p.grad_form + (task * p.heads + head) * size;
    for (int64_t i = 0; i < size; ++i) form[i] = sum_lanes(load(to_form + i * lanes));
    for (int64_t j = 0; j < places; ++j) {
      float* maps = p.grad_maps + ((task * places + j) * p.heads + head) * map_size;
      for (int64_t i = 0; i < map_size; ++i) maps[i] = sum_lanes(load(to_maps + (j * map_size + i) * lanes));
    }
  }
};

void run_blocks_forward(const BlockProblem& p, int64_t first, int64_t last) {
  Arena arena;
  BlockRow row(p, arena);
  for (int64_t task = first; task < last; ++task) row.forward(task);
}

void run_blocks_backward(const BlockProblem& p, int64_t first, int64_t last) {
  Arena arena;
  BlockRow row(p, arena);
  for (int64_t task = first; task < last; ++task) row.backward(task);
}

}  // namespace
}  // namespace LOOKAROUND_ISA
}  // namespace lookaround
