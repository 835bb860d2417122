// Between tensors, whose pixels are vectors of channels, and planes, whose channels are vectors of pixels.

#pragma once

#include <algorithm>
#include <cstdint>

#include "simd.h"

namespace lookaround {
namespace LOOKAROUND_ISA {
namespace {

typedef float Quad __attribute__((vector_size(16)));
typedef float UnalignedQuad __attribute__((vector_size(16), aligned(4), may_alias));

// Rows become columns.
LOOKAROUND_INLINE void transpose4(Quad& a, Quad& b, Quad& c, Quad& d) {
#if defined(__SSE2__)
  _MM_TRANSPOSE4_PS(a, b, c, d);
#else
  Quad p = {a[0], b[0], c[0], d[0]}, q = {a[1], b[1], c[1], d[1]};
  Quad r = {a[2], b[2], c[2], d[2]}, s = {a[3], b[3], c[3], d[3]};
  a = p, b = q, c = r, d = s;
#endif
}

LOOKAROUND_INLINE Quad load_quad(const float* p) { return *reinterpret_cast<const UnalignedQuad*>(p); }
LOOKAROUND_INLINE Quad load_quad(const Bfloat16* p) {
  Quad x = {to_float(p[0]), to_float(p[1]), to_float(p[2]), to_float(p[3])};
  return x;
}

LOOKAROUND_INLINE void store_quad(float* p, Quad x) { *reinterpret_cast<UnalignedQuad*>(p) = x; }
LOOKAROUND_INLINE void store_quad(Bfloat16* p, Quad x) {
  for (int i = 0; i < 4; ++i) from_float(x[i], p + i);
}

#if defined(__AVX512F__)

// Sixteen pixels of eight channels as eight vectors: pixel i in the low half of vector i % 8, or in the high one.
struct Octets {
  __m512 v[8];

  // Transposes the 4 x 4 blocks within the quarters of vectors 0 to 3, and of 4 to 7.
  LOOKAROUND_INLINE void transpose_quarters() {
    for (int i = 0; i < 8; i += 4) {
      const __m512d a = _mm512_castps_pd(_mm512_unpacklo_ps(v[i], v[i + 1]));
      const __m512d b = _mm512_castps_pd(_mm512_unpackhi_ps(v[i], v[i + 1]));
      const __m512d c = _mm512_castps_pd(_mm512_unpacklo_ps(v[i + 2], v[i + 3]));
      const __m512d d = _mm512_castps_pd(_mm512_unpackhi_ps(v[i + 2], v[i + 3]));
      v[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c)), v[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
      v[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
      v[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
    }
  }

  // Swaps quarters between vectors i and i + 4, so that each ends up with one channel or one pixel of each half.
  LOOKAROUND_INLINE void exchange_quarters() {
    const __m512i even = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13);
    const __m512i odd = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
    for (int i = 0; i < 4; ++i) {
      const __m512d a = _mm512_castps_pd(v[i]), b = _mm512_castps_pd(v[i + 4]);
      v[i] = _mm512_castpd_ps(_mm512_permutex2var_pd(a, even, b));
      v[i + 4] = _mm512_castpd_ps(_mm512_permutex2var_pd(a, odd, b));
    }
  }
};

LOOKAROUND_INLINE __m256 load_octet(const float* p) { return _mm256_loadu_ps(p); }
LOOKAROUND_INLINE __m256 load_octet(const Bfloat16* p) {
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}

LOOKAROUND_INLINE void store_octet(float* p, __m256 x) { _mm256_storeu_ps(p, x); }
LOOKAROUND_INLINE void store_octet(Bfloat16* p, __m256 x) {  // as from_float
  const __m256i bits = _mm256_castps_si256(x);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __mmask8 is_nan = _mm256_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  const __m256i high = _mm256_mask_mov_epi32(_mm256_srli_epi32(rounded, 16), is_nan, _mm256_set1_epi32(0x7fc0));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtepi32_epi16(high));
}

// Both take all channels that come in eights, and return how many those are.
template <class T>
int64_t gather_octets(const T* from, int64_t pixel, int64_t count, int64_t dim, float factor, float* to,
                      int64_t channel, int64_t ahead) {
  const __m512 factors = _mm512_set1_ps(factor);
  const int64_t last = count - 1;
  for (int64_t x = 0; x < count; x += 16) {
    const __mmask16 exist = static_cast<__mmask16>(count - x >= 16 ? 0xffff : (1 << (count - x)) - 1);
    for (int64_t c = 0; c + 8 <= dim; c += 8) {
      Octets o;
      for (int64_t i = 0; i < 8; ++i) {
        const T* low = from + std::min(x + i, last) * pixel + c;
        const T* high = from + std::min(x + i + 8, last) * pixel + c;
        if (c % (64 / sizeof(T)) == 0) __builtin_prefetch(low + ahead), __builtin_prefetch(high + ahead);
        const __m512d first = _mm512_castpd256_pd512(_mm256_castps_pd(load_octet(low)));
        o.v[i] = _mm512_castpd_ps(_mm512_insertf64x4(first, _mm256_castps_pd(load_octet(high)), 1));
      }
      o.transpose_quarters(), o.exchange_quarters();
      float* out = to + c * channel + x;
      for (int i = 0; i < 8; ++i) _mm512_mask_storeu_ps(out + i * channel, exist, _mm512_mul_ps(o.v[i], factors));
    }
  }
  return dim / 8 * 8;
}

template <class T>
int64_t scatter_octets(const float* from, int64_t channel, int64_t count, int64_t dim, float factor, T* to,
                       int64_t pixel) {
  const __m512 factors = _mm512_set1_ps(factor);
  for (int64_t x = 0; x < count; x += 16) {
    const __mmask16 exist = static_cast<__mmask16>(count - x >= 16 ? 0xffff : (1 << (count - x)) - 1);
    for (int64_t c = 0; c + 8 <= dim; c += 8) {
      Octets o;
      const float* in = from + c * channel + x;
      for (int i = 0; i < 8; ++i) o.v[i] = _mm512_mul_ps(_mm512_maskz_loadu_ps(exist, in + i * channel), factors);
      o.exchange_quarters(), o.transpose_quarters();
      T* out = to + x * pixel + c;
      for (int64_t i = 0; i < 8; ++i) {
        if (x + i < count) store_octet(out + i * pixel, _mm512_castps512_ps256(o.v[i]));
        const __m256d high = _mm512_extractf64x4_pd(_mm512_castps_pd(o.v[i]), 1);
        if (x + i + 8 < count) store_octet(out + (i + 8) * pixel, _mm256_castpd_ps(high));
      }
    }
  }
  return dim / 8 * 8;
}

#else

template <class T>
int64_t gather_octets(const T*, int64_t, int64_t, int64_t, float, float*, int64_t, int64_t) {
  return 0;
}

template <class T>
int64_t scatter_octets(const float*, int64_t, int64_t, int64_t, float, T*, int64_t) {
  return 0;
}

#endif

// Copy pixels of channels to channels of pixels, times a factor. Pixels lie too far apart for the processor to
// guess what comes next: `ahead` says how many elements on the next call will read.
template <class T>
void gather_pixels(const void* source, int64_t pixel, int64_t count, int64_t dim, float factor, float* to,
                   int64_t channel, int64_t ahead) {
  const T* from = static_cast<const T*>(source);
  const int64_t done = gather_octets(from, pixel, count, dim, factor, to, channel, ahead);
  int64_t x = 0;
  for (; x + 4 <= count; x += 4) {
    int64_t c = done;
    for (; c + 4 <= dim; c += 4) {
      const T* p = from + x * pixel + c;
      if (c % (64 / sizeof(T)) == 0)
        for (int i = 0; i < 4; ++i) __builtin_prefetch(p + i * pixel + ahead);
      Quad q0 = load_quad(p), q1 = load_quad(p + pixel);
      Quad q2 = load_quad(p + 2 * pixel), q3 = load_quad(p + 3 * pixel);
      transpose4(q0, q1, q2, q3);
      float* out = to + c * channel + x;
      store_quad(out, q0 * factor), store_quad(out + channel, q1 * factor);
      store_quad(out + 2 * channel, q2 * factor), store_quad(out + 3 * channel, q3 * factor);
    }
    for (; c < dim; ++c)
      for (int64_t i = x; i < x + 4; ++i) to[c * channel + i] = to_float(from[i * pixel + c]) * factor;
  }
  for (; x < count; ++x)
    for (int64_t c = done; c < dim; ++c) to[c * channel + x] = to_float(from[x * pixel + c]) * factor;
}

LOOKAROUND_INLINE void copy_pixels(const float* from, int64_t count, float factor, float* to) {
  int64_t x = 0;
  for (; x + lanes <= count; x += lanes) store(to + x, load(from + x) * factor);
#if defined(__AVX512F__)
  const __mmask16 rest = static_cast<__mmask16>((1 << (count - x)) - 1);
  _mm512_mask_storeu_ps(to + x, rest, _mm512_mul_ps(_mm512_maskz_loadu_ps(rest, from + x), _mm512_set1_ps(factor)));
#else
  for (; x < count; ++x) to[x] = from[x] * factor;
#endif
}

LOOKAROUND_INLINE void copy_pixels(const Bfloat16* from, int64_t count, float factor, float* to) {
#if defined(__AVX512F__)
  for (int64_t x = 0; x < count; x += 16) {
    const __mmask16 some = static_cast<__mmask16>(count - x >= 16 ? 0xffff : (1 << (count - x)) - 1);
    const __m512i bits = _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(some, from + x)), 16);
    _mm512_mask_storeu_ps(to + x, some, _mm512_mul_ps(_mm512_castsi512_ps(bits), _mm512_set1_ps(factor)));
  }
#else
  for (int64_t x = 0; x < count; ++x) to[x] = to_float(from[x]) * factor;
#endif
}

// Copy channels of pixels, times a factor, where the tensor already has them.
template <class T>
void copy_channels(const void* source, int64_t source_channel, int64_t pixel, int64_t count, int64_t dim, float factor,
                   float* to, int64_t channel) {
  const T* from = static_cast<const T*>(source);
  for (int64_t c = 0; c < dim; ++c, from += source_channel, to += channel) {
    if (pixel == 1) {
      copy_pixels(from, count, factor, to);
    } else {
      for (int64_t x = 0; x < count; ++x) to[x] = to_float(from[x * pixel]) * factor;
    }
  }
}

// The way back.
template <class T>
void scatter_pixels(const float* from, int64_t channel, int64_t count, int64_t dim, float factor, void* target,
                    int64_t pixel) {
  T* to = static_cast<T*>(target);
  const int64_t done = scatter_octets(from, channel, count, dim, factor, to, pixel);
  int64_t x = 0;
  for (; x + 4 <= count; x += 4) {
    int64_t c = done;
    for (; c + 4 <= dim; c += 4) {
      const float* p = from + c * channel + x;
      Quad q0 = load_quad(p), q1 = load_quad(p + channel);
      Quad q2 = load_quad(p + 2 * channel), q3 = load_quad(p + 3 * channel);
      transpose4(q0, q1, q2, q3);
      T* out = to + x * pixel + c;
      store_quad(out, q0 * factor), store_quad(out + pixel, q1 * factor);
      store_quad(out + 2 * pixel, q2 * factor), store_quad(out + 3 * pixel, q3 * factor);
    }
    for (; c < dim; ++c)
      for (int64_t i = x; i < x + 4; ++i) from_float(from[c * channel + i] * factor, to + i * pixel + c);
  }
  for (; x < count; ++x)
    for (int64_t c = done; c < dim; ++c) from_float(from[c * channel + x] * factor, to + x * pixel + c);
}

}  // namespace
}  // namespace LOOKAROUND_ISA
}  // namespace lookaround
