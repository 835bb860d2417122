// The two inner products: pixels with their windows, and weights with windows.

#pragma once

#include "layout.h"
#include "simd.h"

namespace lookaround {
namespace LOOKAROUND_ISA {
namespace {

template <int Halves>
LOOKAROUND_INLINE Floats load_pixels(const float* p, int64_t half_pitch) {
  return Halves == 1 ? load(p) : load_halves(p, half_pitch);
}

template <int Halves>
LOOKAROUND_INLINE void store_pixels(float* p, int64_t half_pitch, Floats x) {
  if (Halves == 1) {
    store(p, x);
  } else {
    std::memcpy(p, &x, sizeof(x) / 2);
    std::memcpy(p + half_pitch, reinterpret_cast<char*>(&x) + sizeof(x) / 2, sizeof(x) / 2);
  }
}

// acc[row][offset] += query[row] * key[offset], summed over the channels.
template <int Rows, int Offsets, int Halves>
LOOKAROUND_INLINE void multiply(Floats (&acc)[Rows][Offsets], const float* query, const float* key,
                                int64_t channel, int64_t half_pitch, int64_t dim) {
  for (int64_t c = 0; c < dim; ++c, query += tile_rows * lanes, key += channel) {
    Floats q[Rows];
    for (int i = 0; i < Rows; ++i) q[i] = load(query + i * lanes);
    for (int b = 0; b < Offsets; ++b) {
      Floats k = load_pixels<Halves>(key + b, half_pitch);
      for (int i = 0; i < Rows; ++i) acc[i][b] += q[i] * k;
    }
  }
}

// The same where query and key hold pairs of channels in bfloat16.
template <int Rows, int Offsets, int Halves>
LOOKAROUND_INLINE void multiply_pairs(Floats (&acc)[Rows][Offsets], const float* query, const float* key,
                                      int64_t channel, int64_t half_pitch, int64_t pairs) {
  for (int64_t c = 0; c < pairs; ++c, query += tile_rows * lanes, key += channel) {
    Floats q[Rows];
    for (int i = 0; i < Rows; ++i) q[i] = load(query + i * lanes);
    for (int b = 0; b < Offsets; ++b) {
      Floats k = load_pixels<Halves>(key + b, half_pitch);
      for (int i = 0; i < Rows; ++i) acc[i][b] = add_pair_products(acc[i][b], q[i], k);
    }
  }
}

// A walk along a row of the window: where the weights and the vectors of each offset are.
struct Walk {
  const float* weight;
  int64_t weight_row, weight_step, weight_half;  // to the next accumulating row, the next offset, the other half
  const float* value;
  int64_t value_channel, value_step, value_half;
  int64_t count;
};

// acc[row][channel] += weight[row][offset] * value[offset][channel], summed over the offsets.
template <int First, int Rows, int Channels, int Halves>
LOOKAROUND_INLINE void accumulate(Floats (&acc)[tile_rows][Channels], const Walk& w) {
  if constexpr (First + Rows <= tile_rows) {
    const float *weight = w.weight, *value = w.value;
    for (int64_t b = 0; b < w.count; ++b, weight += w.weight_step, value += w.value_step) {
      Floats p[Rows];
      for (int i = 0; i < Rows; ++i) p[i] = load_pixels<Halves>(weight + i * w.weight_row, w.weight_half);
      for (int c = 0; c < Channels; ++c) {
        Floats v = load_pixels<Halves>(value + c * w.value_channel, w.value_half);
        for (int i = 0; i < Rows; ++i) acc[First + i][c] += p[i] * v;
      }
    }
  }
}

template <int Channels, int Halves>
LOOKAROUND_INLINE void accumulate_rows(Floats (&acc)[tile_rows][Channels], int64_t first, int64_t rows,
                                       const Walk& w) {
  switch (first * 4 + rows) {
    case 1: return accumulate<0, 1, Channels, Halves>(acc, w);
    case 2: return accumulate<0, 2, Channels, Halves>(acc, w);
    case 3: return accumulate<0, 3, Channels, Halves>(acc, w);
    case 4: return accumulate<0, 4, Channels, Halves>(acc, w);
    case 5: return accumulate<1, 1, Channels, Halves>(acc, w);
    case 6: return accumulate<1, 2, Channels, Halves>(acc, w);
    case 7: return accumulate<1, 3, Channels, Halves>(acc, w);
    case 9: return accumulate<2, 1, Channels, Halves>(acc, w);
    case 10: return accumulate<2, 2, Channels, Halves>(acc, w);
    case 13: return accumulate<3, 1, Channels, Halves>(acc, w);
  }
}

}  // namespace
}  // namespace LOOKAROUND_ISA
}  // namespace lookaround
