// Attention on integer codes. Keys go by twice: first for the largest score of each query row, then for the softmax
// codes relative to it and their products with the values, so that the result does not depend on the blocks.
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "attention.h"
#include "tiles.h"

namespace facsimile {
namespace {

constexpr int64_t kRows = 32;    // query rows at a time: two tiles
constexpr int64_t kBlock = 256;  // keys at a time

// Symmetric int8 codes of up to 16 values; NaN becomes 0.
__m128i symmetric(__m512 x, float inverse, int32_t top) {
  x = _mm512_maskz_mul_ps(_mm512_cmp_ps_mask(x, x, _CMP_ORD_Q), x, _mm512_set1_ps(inverse));
  const __m512 limit = _mm512_set1_ps(static_cast<float>(top));
  x = _mm512_min_ps(_mm512_max_ps(x, _mm512_sub_ps(_mm512_setzero_ps(), limit)), limit);
  return _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x));
}

// One token's codes, filled up with zeros to `deep`.
template <typename T>
void row_codes(const T* from, int64_t width, int64_t deep, float inverse, int32_t top, int8_t* to) {
  for (int64_t c = 0; c < deep; c += 16) {
    const __mmask16 mask = lanes(std::clamp<int64_t>(width - c, 0, 16));
    const __m128i row = mask ? symmetric(load(from + c, mask), inverse, top) : _mm_setzero_si128();
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + c), row);
  }
}

// For every 16 keys and 64 columns a tile whose row r holds columns 4r to 4r + 3 of each key.
template <typename T>
void pack_keys(const Tokens<T>& k, int64_t b, int64_t h, const AttentionShape& shape, int64_t deep, float inverse,
               int32_t top, int8_t* to) {
  alignas(64) int8_t row[1024] = {};
  for (int64_t key = 0; key < round_up(shape.keys, 64); ++key) {
    if (key < shape.keys) {
      row_codes(k.row(b, key, h), shape.width, deep, inverse, top, row);
    } else {
      std::fill_n(row, deep, int8_t{0});
    }
    const uint32_t* quads = reinterpret_cast<const uint32_t*>(row);
    uint32_t* tiles = reinterpret_cast<uint32_t*>(to + key / 16 * 16 * deep);
    for (int64_t quad = 0; quad < deep / 4; ++quad) tiles[quad / 16 * 256 + quad % 16 * 16 + key % 16] = quads[quad];
  }
}

// For every 64 keys and 16 columns a tile whose row r holds keys 4r to 4r + 3 of each column.
template <typename T>
void pack_values(const Tokens<T>& v, int64_t b, int64_t h, const AttentionShape& shape, int64_t wide, float inverse,
                 int32_t top, int8_t* to) {
  alignas(64) int8_t row[1024] = {};
  for (int64_t key = 0; key < round_up(shape.keys, 64); ++key) {
    if (key < shape.keys) {
      row_codes(v.row(b, key, h), shape.width, wide, inverse, top, row);
    } else {
      std::fill_n(row, wide, int8_t{0});
    }
    int8_t* tiles = to + key / 64 * 64 * wide + key % 64 / 4 * 64 + key % 4;
    for (int64_t c = 0; c < wide; ++c) tiles[c / 16 * 1024 + c % 16 * 4] = row[c];
  }
}

struct Worker {
  Worker(int64_t deep, int64_t wide)
      : query(kRows * deep), scores(kRows * kBlock), high(kRows * kBlock), low(kRows * kBlock),
        high_sums(kRows * wide), low_sums(kRows * wide) {}
  Buffer<int8_t> query;
  Buffer<int32_t> scores;
  Buffer<uint8_t> high, low;  // softmax codes; `high` is the upper byte where they have 16 bits
  Buffer<int32_t> high_sums, low_sums;
  int32_t maximum[kRows];
  int64_t total[kRows];
};

void multiply_keys(const Worker& w, const int8_t* keys, int64_t valid, int64_t deep) {
  for (int64_t n = 0; n < round_up(valid, 32) / 16; n += 2) {
    const int8_t* tile = keys + n * deep * 16;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t c = 0; c < deep; c += 64) {
      _tile_loadd(4, w.query.data + c, deep);
      _tile_loadd(5, w.query.data + 16 * deep + c, deep);
      _tile_loadd(6, tile + c * 16, 64);
      _tile_loadd(7, tile + (deep + c) * 16, 64);
      _tile_dpbssd(0, 4, 6);
      _tile_dpbssd(1, 4, 7);
      _tile_dpbssd(2, 5, 6);
      _tile_dpbssd(3, 5, 7);
    }
    int32_t* to = w.scores.data + n * 16;
    _tile_stored(0, to, kBlock * 4);
    _tile_stored(1, to + 16, kBlock * 4);
    _tile_stored(2, to + 16 * kBlock, kBlock * 4);
    _tile_stored(3, to + 16 * kBlock + 16, kBlock * 4);
  }
}

void find_maxima(Worker& w, int64_t valid) {
  for (int64_t r = 0; r < kRows; ++r) {
    __m512i top = _mm512_set1_epi32(w.maximum[r]);
    for (int64_t c = 0; c < valid; c += 16) {
      top = _mm512_mask_max_epi32(top, lanes(valid - c), top, _mm512_load_si512(w.scores.data + r * kBlock + c));
    }
    w.maximum[r] = _mm512_reduce_max_epi32(top);
  }
}

template <bool kWide>
void soften(Worker& w, int64_t valid, float factor, int32_t softmax_top) {
  const __m512 slope = _mm512_set1_ps(factor), top = _mm512_set1_ps(static_cast<float>(softmax_top));
  for (int64_t r = 0; r < kRows; ++r) {
    const __m512i maximum = _mm512_set1_epi32(w.maximum[r]);
    __m512i total = _mm512_setzero_si512();
    for (int64_t c = 0; c < round_up(valid, 64); c += 16) {
      const __mmask16 mask = lanes(std::clamp<int64_t>(valid - c, 0, 16));
      const __m512i distance = _mm512_sub_epi32(_mm512_load_si512(w.scores.data + r * kBlock + c), maximum);
      const __m512 weight = _mm512_mul_ps(exp2(_mm512_mul_ps(_mm512_cvtepi32_ps(distance), slope)), top);
      const __m512i code = _mm512_maskz_cvtps_epi32(mask, weight);
      total = _mm512_add_epi32(total, code);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(w.low.data + r * kBlock + c), _mm512_cvtepi32_epi8(code));
      if constexpr (kWide) {
        const __m128i upper = _mm512_cvtepi32_epi8(_mm512_srli_epi32(code, 8));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(w.high.data + r * kBlock + c), upper);
      }
    }
    w.total[r] += _mm512_reduce_add_epi32(total);
  }
}

void multiply_values(const uint8_t* weights, int32_t* sums, const int8_t* values, int64_t valid, int64_t wide) {
  for (int64_t n = 0; n < wide; n += 16) {
    int32_t* sum = sums + n;
    _tile_loadd(0, sum, wide * 4);
    _tile_loadd(2, sum + 16 * wide, wide * 4);
    for (int64_t key = 0; key < valid; key += 64) {
      _tile_loadd(4, weights + key, kBlock);
      _tile_loadd(5, weights + 16 * kBlock + key, kBlock);
      _tile_loadd(6, values + key * wide + n / 16 * 1024, 64);
      _tile_dpbusd(0, 4, 6);
      _tile_dpbusd(2, 5, 6);
    }
    _tile_stored(0, sum, wide * 4);
    _tile_stored(2, sum + 16 * wide, wide * 4);
  }
}

template <bool kWide>
void attend(Worker& w, const int8_t* keys, const int8_t* values, const AttentionShape& shape, int64_t deep, int64_t wide,
            float factor, int32_t softmax_top) {
  std::fill_n(w.maximum, kRows, std::numeric_limits<int32_t>::min());
  std::fill_n(w.total, kRows, 0);
  std::fill_n(w.low_sums.data, kRows * wide, 0);
  std::fill_n(w.high_sums.data, kRows * wide, 0);
  for (int64_t key = 0; key < shape.keys; key += kBlock) {
    multiply_keys(w, keys + key * deep, std::min(kBlock, shape.keys - key), deep);
    find_maxima(w, std::min(kBlock, shape.keys - key));
  }
  for (int64_t key = 0; key < shape.keys; key += kBlock) {
    const int64_t valid = std::min(kBlock, shape.keys - key);
    multiply_keys(w, keys + key * deep, valid, deep);
    soften<kWide>(w, valid, factor, softmax_top);
    multiply_values(w.low.data, w.low_sums.data, values + key * wide, valid, wide);
    if constexpr (kWide) multiply_values(w.high.data, w.high_sums.data, values + key * wide, valid, wide);
  }
}

}  // namespace

template <typename T>
void attention_int8(const Tokens<T>& q, const Tokens<T>& k, const Tokens<T>& v, const AttentionShape& shape,
                    float scale, const AttentionScales& scales, const AttentionOutput<T>& out) {
  const int64_t deep = round_up(shape.width, 64), wide = round_up(shape.width, 16);
  const int64_t padded = round_up(shape.keys, 64), pairs = shape.batch * shape.heads;
  const int64_t blocks = (shape.queries + kRows - 1) / kRows;
  const float factor = static_cast<float>(scale * scales.query * scales.key * 1.4426950408889634);
  const auto run = scales.softmax_top > 255 ? attend<true> : attend<false>;
  Buffer<int8_t> keys(pairs * padded * deep), values(pairs * padded * wide);
#pragma omp parallel
  {
    TileScope tiles;
    Worker w(deep, wide);
#pragma omp for schedule(static)
    for (int64_t pair = 0; pair < pairs; ++pair) {
      const int64_t b = pair / shape.heads, h = pair % shape.heads;
      pack_keys(k, b, h, shape, deep, 1.0 / scales.key, scales.top, keys.data + pair * padded * deep);
      pack_values(v, b, h, shape, wide, 1.0 / scales.value, scales.top, values.data + pair * padded * wide);
    }
#pragma omp for schedule(static)
    for (int64_t item = 0; item < pairs * blocks; ++item) {
      const int64_t pair = item / blocks, b = pair / shape.heads, h = pair % shape.heads;
      const int64_t first = item % blocks * kRows, rows = std::min(kRows, shape.queries - first);
      std::fill_n(w.query.data, kRows * deep, int8_t{0});
      for (int64_t r = 0; r < rows; ++r) {
        row_codes(q.row(b, first + r, h), shape.width, deep, 1.0 / scales.query, scales.top, w.query.data + r * deep);
      }
      run(w, keys.data + pair * padded * deep, values.data + pair * padded * wide, shape, deep, wide, factor,
          scales.softmax_top);
      for (int64_t r = 0; r < rows; ++r) {
        const __m512 share = _mm512_set1_ps(static_cast<float>(scales.value / w.total[r]));
        const int64_t start = ((b * shape.queries + first + r) * shape.heads + h) * shape.width;
        for (int64_t c = 0; c < shape.width; c += 16) {
          const __m512 low = _mm512_cvtepi32_ps(_mm512_load_si512(w.low_sums.data + r * wide + c));
          const __m512 high = _mm512_cvtepi32_ps(_mm512_load_si512(w.high_sums.data + r * wide + c));
          out.write(start + c, _mm512_mul_ps(_mm512_fmadd_ps(high, _mm512_set1_ps(256.0f), low), share),
                    lanes(shape.width - c));
        }
      }
    }
  }
}

template void attention_int8(const Tokens<float>&, const Tokens<float>&, const Tokens<float>&, const AttentionShape&,
                             float, const AttentionScales&, const AttentionOutput<float>&);
template void attention_int8(const Tokens<bfloat16>&, const Tokens<bfloat16>&, const Tokens<bfloat16>&,
                             const AttentionShape&, float, const AttentionScales&, const AttentionOutput<bfloat16>&);

}  // namespace facsimile
