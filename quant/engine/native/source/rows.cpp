// Layer normalization, GEGLU and plain quantization of rows of tokens.
#include <algorithm>
#include <cmath>

#include "quantize.h"

namespace facsimile {

template <typename T>
void layer_norm_quantize(const T* x, int64_t rows, int64_t width, const float* weight, const float* bias,
                         float epsilon, const Affine& affine, uint8_t* out) {
#pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < rows; ++r) {
    const T* from = x + r * width;
    __m512 sum = _mm512_setzero_ps(), square = sum;
    for (int64_t c = 0; c < width; c += 16) sum = _mm512_add_ps(sum, load(from + c, lanes(width - c)));
    const float mean = _mm512_reduce_add_ps(sum) / static_cast<float>(width);
    for (int64_t c = 0; c < width; c += 16) {
      const __mmask16 mask = lanes(width - c);
      const __m512 y = _mm512_maskz_sub_ps(mask, load(from + c, mask), _mm512_set1_ps(mean));
      square = _mm512_fmadd_ps(y, y, square);
    }
    const float variance = _mm512_reduce_add_ps(square) / static_cast<float>(width);
    const __m512 inverse = _mm512_set1_ps(1.0f / std::sqrt(variance + epsilon));
    for (int64_t c = 0; c < width; c += 16) {
      const __mmask16 mask = lanes(width - c);
      __m512 y = _mm512_mul_ps(_mm512_sub_ps(load(from + c, mask), _mm512_set1_ps(mean)), inverse);
      y = _mm512_fmadd_ps(y, load(weight + c, mask), load(bias + c, mask));
      store_codes(out + r * width + c, y, affine, mask);
    }
  }
}

template <typename T>
void geglu_quantize(const T* x, int64_t rows, int64_t width, const Affine& affine, uint8_t* out) {
#pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < rows; ++r) {
    const T* from = x + r * width * 2;
    for (int64_t c = 0; c < width; c += 16) {
      const __mmask16 mask = lanes(width - c);
      const __m512 y = _mm512_mul_ps(load(from + c, mask), gelu(load(from + width + c, mask)));
      store_codes(out + r * width + c, y, affine, mask);
    }
  }
}

template <typename T>
void rows_quantize(const T* x, int64_t rows, int64_t width, int64_t stride, const Affine& affine, uint8_t* out) {
#pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < width; c += 16) {
      const __mmask16 mask = lanes(width - c);
      store_codes(out + r * width + c, load(x + r * stride + c, mask), affine, mask);
    }
  }
}

template <typename T>
void rows_quantize_dynamic(const T* x, int64_t rows, int64_t width, int64_t stride, int8_t* out, float* scale) {
#pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < rows; ++r) {
    __m512 top = _mm512_setzero_ps();
    for (int64_t c = 0; c < width; c += 16) {
      const __mmask16 mask = lanes(width - c);
      const __m512 y = _mm512_abs_ps(load(x + r * stride + c, mask));
      top = _mm512_mask_max_ps(top, _mm512_cmp_ps_mask(y, _mm512_set1_ps(INFINITY), _CMP_LT_OQ), top, y);
    }
    scale[r] = std::max(_mm512_reduce_max_ps(top) / 127.0f, 1e-8f);
    const __m512 inverse = _mm512_set1_ps(1.0f / scale[r]);
    for (int64_t c = 0; c < width; c += 16) {
      const __mmask16 mask = lanes(width - c);
      __m512 y = load(x + r * stride + c, mask);
      y = _mm512_maskz_mul_ps(_mm512_cmp_ps_mask(y, y, _CMP_ORD_Q), y, inverse);
      y = _mm512_min_ps(_mm512_max_ps(y, _mm512_set1_ps(-127.0f)), _mm512_set1_ps(127.0f));
      _mm_mask_storeu_epi8(out + r * width + c, mask, _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(y)));
    }
  }
}

void unpack_nibbles(const uint8_t* packed, int64_t count, int8_t* out) {
  const __m512i low = _mm512_set1_epi16(0x000f), sign = _mm512_set1_epi8(8);
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < count / 64 * 64; i += 64) {
    const __m512i pairs = _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(packed + i / 2)));
    const __m512i high = _mm512_slli_epi16(_mm512_andnot_si512(low, pairs), 4);
    const __m512i nibbles = _mm512_or_si512(_mm512_and_si512(pairs, low), high);
    _mm512_storeu_si512(out + i, _mm512_sub_epi8(_mm512_xor_si512(nibbles, sign), sign));  // sign extension
  }
  for (int64_t i = count / 64 * 64; i < count; ++i) {
    const int nibble = (packed[i / 2] >> (i % 2 * 4)) & 15;
    out[i] = static_cast<int8_t>((nibble ^ 8) - 8);
  }
}

#define FACSIMILE_ROWS(T)                                                                                            \
  template void layer_norm_quantize(const T*, int64_t, int64_t, const float*, const float*, float, const Affine&,    \
                                    uint8_t*);                                                                       \
  template void geglu_quantize(const T*, int64_t, int64_t, const Affine&, uint8_t*);                                 \
  template void rows_quantize(const T*, int64_t, int64_t, int64_t, const Affine&, uint8_t*);                         \
  template void rows_quantize_dynamic(const T*, int64_t, int64_t, int64_t, int8_t*, float*);
FACSIMILE_ROWS(float)
FACSIMILE_ROWS(bfloat16)

}  // namespace facsimile
