// Batch norm in training, with what stands around it in a residual network: an addition and a ReLU.
//
// Memory is the limit, so each pass reads its images once: one pass for the moments, one for the output; one for
// the sums of the gradient, one for the gradient. Images are pixels of channels, without gaps.

#pragma once

#include <algorithm>
#include <cstdint>

#include "kernel.h"

namespace lookaround {
namespace LOOKAROUND_ISA {
namespace {

// Pixels of one task.
struct NormTask {
  int64_t first, last;
  NormTask(const NormProblem& p, int64_t task)
      : first(task * p.pixels_per_task), last(std::min(first + p.pixels_per_task, p.pixels)) {}
};

// Sums over the pixels of a task, relative to the first pixel of all: a large mean must not eat up the variance.
void run_moments(const NormProblem& p, int64_t first, int64_t last) {
  const int64_t n = p.channels;
  const float* __restrict pivot = p.x;
  for (int64_t task = first; task < last; ++task) {
    const NormTask t(p, task);
    float* __restrict sum = p.sums + task * 2 * n;
    float* __restrict squares = sum + n;
    std::fill_n(sum, 2 * n, 0.0f);
    int64_t i = t.first;
    for (; i + 4 <= t.last; i += 4) {
      const float *__restrict a = p.x + i * n, *__restrict b = a + n, *__restrict c = b + n, *__restrict d = c + n;
      for (int64_t k = 0; k < n; ++k) {
        const float u = a[k] - pivot[k], v = b[k] - pivot[k], w = c[k] - pivot[k], x = d[k] - pivot[k];
        sum[k] += (u + v) + (w + x);
        squares[k] += (u * u + v * v) + (w * w + x * x);
      }
    }
    for (; i < t.last; ++i)
      for (int64_t k = 0; k < n; ++k) {
        const float u = p.x[i * n + k] - pivot[k];
        sum[k] += u, squares[k] += u * u;
      }
  }
}

template <bool Added>
void normalize(const NormProblem& p, const NormTask& t) {
  const int64_t n = p.channels;
  const float *__restrict scale = p.scale, *__restrict shift = p.shift;
  for (int64_t i = t.first; i < t.last; ++i) {
    const float *__restrict x = p.x + i * n, *__restrict added = Added ? p.added + i * n : nullptr;
    float* __restrict y = p.y + i * n;
    for (int64_t k = 0; k < n; ++k) {
      float v = x[k] * scale[k] + shift[k];
      if (Added) v += added[k];
      y[k] = v > 0.0f ? v : v * 0.0f;  // NaN stays NaN
    }
  }
}

void run_normalize(const NormProblem& p, int64_t first, int64_t last) {
  for (int64_t task = first; task < last; ++task) {
    const NormTask t(p, task);
    p.added ? normalize<true>(p, t) : normalize<false>(p, t);
  }
}

// The gradient before the ReLU: of those outputs that it let through. With an addition (Added) they are looked up
// in y, without one computed again.
template <bool Added>
inline float pass(float gradient, float x, float scale, float shift, float y) {
  return (Added ? y : x * scale + shift) > 0.0f ? gradient : 0.0f;
}

template <bool Added>
void sum_gradients(const NormProblem& p, const NormTask& t, float* __restrict sum, float* __restrict products) {
  const int64_t n = p.channels;
  const float *__restrict scale = p.scale, *__restrict shift = p.shift, *__restrict mean = p.mean;
  std::fill_n(sum, n, 0.0f), std::fill_n(products, n, 0.0f);
  for (int64_t i = t.first; i < t.last; i += 2) {
    const int64_t next = i + 1 < t.last ? n : 0;  // the last of an odd number meets itself, times zero
    const float second = next ? 1.0f : 0.0f;
    const float *__restrict x = p.x + i * n, *__restrict g = p.grad + i * n;
    const float* __restrict y = Added ? p.y + i * n : x;
    for (int64_t k = 0; k < n; ++k) {
      const float a = pass<Added>(g[k], x[k], scale[k], shift[k], y[k]);
      const float b = second * pass<Added>(g[next + k], x[next + k], scale[k], shift[k], y[next + k]);
      sum[k] += a + b;
      products[k] += a * (x[k] - mean[k]) + b * (x[next + k] - mean[k]);
    }
  }
}

void run_sum_gradients(const NormProblem& p, int64_t first, int64_t last) {
  for (int64_t task = first; task < last; ++task) {
    const NormTask t(p, task);
    float *sum = p.sums + task * 2 * p.channels, *products = sum + p.channels;
    p.y ? sum_gradients<true>(p, t, sum, products) : sum_gradients<false>(p, t, sum, products);
  }
}

template <bool Added>
void differentiate(const NormProblem& p, const NormTask& t) {
  const int64_t n = p.channels;
  const float *__restrict scale = p.scale, *__restrict shift = p.shift;
  const float *__restrict slope = p.slope, *__restrict offset = p.offset;
  for (int64_t i = t.first; i < t.last; ++i) {
    const float *__restrict x = p.x + i * n, *__restrict g = p.grad + i * n;
    const float* __restrict y = Added ? p.y + i * n : x;
    float *__restrict to_x = p.grad_x + i * n, *__restrict to_added = Added ? p.grad_added + i * n : nullptr;
    for (int64_t k = 0; k < n; ++k) {
      const float a = pass<Added>(g[k], x[k], scale[k], shift[k], y[k]);
      if (Added) to_added[k] = a;
      to_x[k] = scale[k] * a + slope[k] * x[k] + offset[k];
    }
  }
}

void run_differentiate(const NormProblem& p, int64_t first, int64_t last) {
  for (int64_t task = first; task < last; ++task) {
    const NormTask t(p, task);
    p.y ? differentiate<true>(p, t) : differentiate<false>(p, t);
  }
}

}  // namespace
}  // namespace LOOKAROUND_ISA
}  // namespace lookaround
