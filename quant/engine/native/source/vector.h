// Sixteen floats at a time: loads and stores of the element types, rounding to codes, and the functions of the fused
// kernels. AVX-512 with BF16.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace facsimile {

using bfloat16 = uint16_t;  // the bits of one, as torch stores it

inline __mmask16 lanes(int64_t count) { return count >= 16 ? 0xffff : static_cast<__mmask16>((1u << count) - 1); }

inline __m512 load(const float* from, __mmask16 mask) { return _mm512_maskz_loadu_ps(mask, from); }

inline __m512 load(const bfloat16* from, __mmask16 mask) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from));
  return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

inline void store(float* to, __m512 x, __mmask16 mask) { _mm512_mask_storeu_ps(to, mask, x); }

inline void store(bfloat16* to, __m512 x, __mmask16 mask) {
  _mm256_mask_storeu_epi16(to, mask, reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x)));
}

// Affine quantization: round half to even of x / scale, plus the zero point, clipped to [0, top].
struct Affine {
  float inverse_scale;
  int32_t zero_point;
  int32_t top;
};

// NaN becomes the zero point's code and infinities the ends of the range: the clamp's first operand is returned for NaN.
inline __m128i codes(__m512 x, const Affine& affine) {
  const __m512 zero_point = _mm512_set1_ps(static_cast<float>(affine.zero_point));
  const __mmask16 number = _mm512_cmp_ps_mask(x, x, _CMP_ORD_Q);
  __m512 y = _mm512_maskz_mul_ps(number, x, _mm512_set1_ps(affine.inverse_scale));
  y = _mm512_roundscale_ps(y, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  y = _mm512_add_ps(y, zero_point);
  y = _mm512_min_ps(_mm512_max_ps(y, _mm512_setzero_ps()), _mm512_set1_ps(static_cast<float>(affine.top)));
  return _mm512_cvtepi32_epi8(_mm512_cvttps_epi32(y));
}

inline void store_codes(uint8_t* to, __m512 x, const Affine& affine, __mmask16 mask) {
  _mm_mask_storeu_epi8(to, mask, codes(x, affine));
}

// 2^x by a polynomial of degree 5 on the fraction; relative error below 3e-7 for x >= -126, 0 far below.
inline __m512 exp2(__m512 x) {
  const __m512 f = _mm512_reduce_ps(x, 0x09);  // x - floor(x)
  __m512 p = _mm512_set1_ps(1.8775767e-3f);
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(8.9893397e-3f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.5826318e-2f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.4015361e-1f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.9315308e-1f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(9.9999994e-1f));
  return _mm512_scalef_ps(p, x);
}

// 2^x to three digits more than bfloat16 holds: degree 3, relative error below 1.1e-4.
inline __m512 rough_exp2(__m512 x) {
  const __m512 f = _mm512_reduce_ps(x, 0x09);
  __m512 p = _mm512_set1_ps(0.078024529f);
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.22606714f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.69583356f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.9999252f));
  return _mm512_scalef_ps(p, x);
}

// 1 / x, two correct digits short of the division, which is several times slower.
inline __m512 reciprocal(__m512 x) {
  const __m512 r = _mm512_rcp14_ps(x);
  return _mm512_mul_ps(r, _mm512_fnmadd_ps(x, r, _mm512_set1_ps(2.0f)));
}

// x / (1 + e^-x). The exponent is capped so that a large negative x gives -0 rather than -inf * 0.
inline __m512 silu(__m512 x) {
  const __m512 power = _mm512_min_ps(_mm512_mul_ps(x, _mm512_set1_ps(-1.44269504f)), _mm512_set1_ps(120.0f));
  return _mm512_mul_ps(x, reciprocal(_mm512_add_ps(_mm512_set1_ps(1.0f), exp2(power))));
}

// x * Phi(x), the error function by Abramowitz and Stegun 7.1.26 (absolute error 1.5e-7).
inline __m512 gelu(__m512 x) {
  const __m512 magnitude = _mm512_mul_ps(_mm512_abs_ps(x), _mm512_set1_ps(0.70710678f));
  const __m512 t = reciprocal(_mm512_fmadd_ps(magnitude, _mm512_set1_ps(0.3275911f), _mm512_set1_ps(1.0f)));
  __m512 p = _mm512_set1_ps(1.061405429f);
  p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(-1.453152027f));
  p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(1.421413741f));
  p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(-0.284496736f));
  p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(0.254829592f));
  const __m512 square = _mm512_min_ps(_mm512_mul_ps(magnitude, magnitude), _mm512_set1_ps(80.0f));
  const __m512 tail = _mm512_mul_ps(_mm512_mul_ps(p, t), exp2(_mm512_mul_ps(square, _mm512_set1_ps(-1.44269504f))));
  const __m512 upper = _mm512_fnmadd_ps(_mm512_set1_ps(0.5f), tail, _mm512_set1_ps(1.0f));
  const __mmask16 negative = _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_LT_OQ);
  return _mm512_mul_ps(x, _mm512_mask_mul_ps(upper, negative, _mm512_set1_ps(0.5f), tail));
}

}  // namespace facsimile
