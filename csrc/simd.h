// One vector of floats, as wide as the instruction set that this file is compiled for.
//
// GCC and Clang vector types carry the arithmetic (and contract it to fused multiply-adds); intrinsics stand
// only where the vector types have no word for an operation.

#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__AVX512F__) || defined(__AVX2__) || defined(__SSE2__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#define LOOKAROUND_INLINE inline __attribute__((always_inline))

namespace lookaround {
namespace LOOKAROUND_ISA {

#if defined(__AVX512F__)
constexpr int lanes = 16;
constexpr int tile_rows = 4;  // of 32 registers, 16 accumulate
#elif defined(__AVX2__)
constexpr int lanes = 8;
constexpr int tile_rows = 2;  // of 16 registers, 8 accumulate
#elif defined(__aarch64__)
constexpr int lanes = 4;
constexpr int tile_rows = 4;
#else
constexpr int lanes = 4;
constexpr int tile_rows = 2;
#endif

typedef float Floats __attribute__((vector_size(4 * lanes)));
typedef int32_t Ints __attribute__((vector_size(4 * lanes)));
typedef float UnalignedFloats __attribute__((vector_size(4 * lanes), aligned(4), may_alias));

LOOKAROUND_INLINE Floats load(const float* p) { return *reinterpret_cast<const UnalignedFloats*>(p); }
LOOKAROUND_INLINE void store(float* p, Floats x) { *reinterpret_cast<UnalignedFloats*>(p) = x; }
LOOKAROUND_INLINE Floats broadcast(float x) { return x - Floats{}; }

// The larger of each pair; the second where either is no number, so that NaN passes through `maximum(c, x)`.
LOOKAROUND_INLINE Floats maximum(Floats a, Floats b) {
#if defined(__AVX512F__)
  return (Floats)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
  return (Floats)_mm256_max_ps((__m256)a, (__m256)b);
#elif defined(__SSE2__)
  return (Floats)_mm_max_ps((__m128)a, (__m128)b);
#else
  return (Floats)(((Ints)a & (Ints)(a > b)) | ((Ints)b & ~(Ints)(a > b)));
#endif
}

LOOKAROUND_INLINE Floats minimum(Floats a, Floats b) { return -maximum(-a, -b); }

// 0, 1, 2, …
LOOKAROUND_INLINE Ints lane_numbers() {
  Ints x;
  for (int i = 0; i < lanes; ++i) x[i] = i;
  return x;
}

// Two half vectors, `half` floats apart, as one.
LOOKAROUND_INLINE Floats load_halves(const float* p, ptrdiff_t half) {
#if defined(__AVX512F__)
  __m512d low = _mm512_castpd256_pd512(_mm256_castps_pd(_mm256_loadu_ps(p)));
  return (Floats)_mm512_insertf64x4(low, _mm256_castps_pd(_mm256_loadu_ps(p + half)), 1);
#else
  Floats x;
  std::memcpy(&x, p, sizeof(x) / 2);
  std::memcpy(reinterpret_cast<char*>(&x) + sizeof(x) / 2, p + half, sizeof(x) / 2);
  return x;
#endif
}

// Two vectors of floats as one of pairs of bfloat16, the first in the low halves: exact for what was bfloat16.
LOOKAROUND_INLINE Floats pack_pairs(Floats low, Floats high) {
  return (Floats)(((Ints)low >> 16 & 0xffff) | ((Ints)high & static_cast<int32_t>(0xffff0000)));
}

#if defined(__AVX512BF16__)
constexpr bool has_pair_products = true;
// sum + the two products of each pair, each added in float32.
LOOKAROUND_INLINE Floats add_pair_products(Floats sum, Floats a, Floats b) {
  return (Floats)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
}
#else
constexpr bool has_pair_products = false;
LOOKAROUND_INLINE Floats add_pair_products(Floats sum, Floats, Floats) { return sum; }
#endif

// 2^x with a relative error below 2^-22; exactly 0 for x <= -127, minus infinity included.
LOOKAROUND_INLINE Floats exp2(Floats x) {
  x = maximum(broadcast(-127.0f), x);
#if defined(__AVX512F__)
  Floats f = (Floats)_mm512_reduce_ps((__m512)x, 0);
#else
  const Floats shift = broadcast(12582912.0f);  // 1.5 * 2^23 rounds to a whole number
  Floats whole = (x + shift) - shift, f = x - whole;
#endif
  Floats y = broadcast(0.00132647273f);
  y = y * f + 0.00967151299f;
  y = y * f + 0.0555073358f;
  y = y * f + 0.240222424f;
  y = y * f + 0.693147004f;
  y = y * f + 1.0f;
#if defined(__AVX512F__)
  return (Floats)_mm512_maskz_scalef_ps(_mm512_cmp_ps_mask((__m512)x, _mm512_set1_ps(-127.0f), _CMP_NLE_UQ), (__m512)y, (__m512)(x - f));
#else
  Ints exponent = __builtin_convertvector(whole, Ints);
  return y * (Floats)((exponent + 127) << 23);
#endif
}

// log2 of a positive, normal x, with an absolute error near 2^-23.
LOOKAROUND_INLINE Floats log2(Floats x) {
  Ints bits = (Ints)x - 0x3f3504f3;  // the mantissa ends up in [sqrt(1/2), sqrt(2))
  Ints exponent = bits >> 23;
  Floats m = (Floats)((bits & 0x007fffff) + 0x3f3504f3);
  Floats z = (m - 1.0f) / (m + 1.0f), zz = z * z;
  Floats series = ((zz * (1 / 9.0f) + 1 / 7.0f) * zz + 1 / 5.0f) * zz + 1 / 3.0f;
  Floats log_m = 2.8853900818f * (z + z * zz * series);  // 2 / ln(2)
  return __builtin_convertvector(exponent, Floats) + log_m;
}

LOOKAROUND_INLINE float sum_lanes(Floats x) {
  float total = 0;
  for (int i = 0; i < lanes; ++i) total += x[i];
  return total;
}

LOOKAROUND_INLINE bool any_lane(Ints mask) {
  int32_t any = 0;
  for (int i = 0; i < lanes; ++i) any |= mask[i];
  return any != 0;
}

struct Bfloat16 {
  uint16_t bits;
};

LOOKAROUND_INLINE float to_float(float x) { return x; }
LOOKAROUND_INLINE float to_float(Bfloat16 x) {
  uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float y;
  std::memcpy(&y, &bits, 4);
  return y;
}

LOOKAROUND_INLINE void from_float(float x, float* out) { *out = x; }
LOOKAROUND_INLINE void from_float(float x, Bfloat16* out) {  // to the nearest, ties to even; NaN stays NaN
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  out->bits = x != x ? 0x7fc0 : static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// Whether this processor runs what this file was compiled for.
inline bool is_supported() {
#if defined(__AVX512BF16__)
  return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
#elif defined(__AVX512F__)
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
#elif defined(__AVX2__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
  return true;
#endif
}

}  // namespace LOOKAROUND_ISA
}  // namespace lookaround
