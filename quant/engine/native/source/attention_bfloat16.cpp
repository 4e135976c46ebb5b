// Flash attention with bfloat16 products and float32 sums. Keys go by in blocks; the running maximum of each query row
// rescales what was summed before. The tiles multiply the next block's keys while the vector units exponentiate this
// one's scores.
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
constexpr int64_t kRowsPerTurn = kRows / (kBlock / 32);  // rows softened for every 32 keys multiplied

// Keys for the right operand of Q K^T: for every 16 keys and 32 columns a tile whose row r holds columns 2r, 2r + 1 of
// each key.
template <typename T>
void pack_keys(const Tokens<T>& k, int64_t b, int64_t h, int64_t keys, int64_t width, int64_t deep, bfloat16* to) {
  const int64_t padded = round_up(keys, 32);
  for (int64_t first = 0; first < padded; first += 16) {
    for (int64_t column = 0; column < deep; column += 32, to += 512) {
      for (int64_t key = 0; key < 16; ++key) {
        alignas(64) bfloat16 row[32] = {};
        if (first + key < keys) {
          const T* from = k.row(b, first + key, h) + column;
          for (int64_t c = 0; c < 32; c += 16) {
            store(row + c, load(from + c, lanes(std::clamp<int64_t>(width - column - c, 0, 16))), 0xffff);
          }
        }
        const uint32_t* pairs = reinterpret_cast<const uint32_t*>(row);
        uint32_t* tile = reinterpret_cast<uint32_t*>(to);
        for (int64_t r = 0; r < 16; ++r) tile[r * 16 + key] = pairs[r];
      }
    }
  }
}

// Values for the right operand of P V: for every 32 keys and 16 columns a tile whose row r holds keys 2r, 2r + 1.
template <typename T>
void pack_values(const Tokens<T>& v, int64_t b, int64_t h, int64_t keys, int64_t width, int64_t wide, bfloat16* to) {
  const int64_t padded = round_up(keys, 32);
  for (int64_t first = 0; first < padded; first += 32) {
    for (int64_t column = 0; column < wide; column += 16, to += 512) {
      const __mmask16 mask = lanes(std::clamp<int64_t>(width - column, 0, 16));
      for (int64_t r = 0; r < 16; ++r) {
        __m512 even = _mm512_setzero_ps(), odd = _mm512_setzero_ps();
        if (first + 2 * r < keys) even = load(v.row(b, first + 2 * r, h) + column, mask);
        if (first + 2 * r + 1 < keys) odd = load(v.row(b, first + 2 * r + 1, h) + column, mask);
        const __m512i low = _mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(even)));
        const __m512i high = _mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(odd)));
        _mm512_storeu_si512(to + r * 32, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
      }
    }
  }
}

struct Worker {
  Worker(int64_t deep, int64_t wide)
      : query(kRows * deep), scores(2 * kRows * kBlock), weights(kRows * kBlock), sums(kRows * wide) {}
  Buffer<bfloat16> query;
  Buffer<float> scores;  // of this block and of the next
  Buffer<bfloat16> weights;
  Buffer<float> sums;
  float maximum[kRows], total[kRows];
};

// Scores of 32 keys, from the first of them on.
void multiply_keys(const Worker& w, const bfloat16* keys, int64_t deep, float* to) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t c = 0; c < deep; c += 32) {
    _tile_loadd(4, w.query.data + c, deep * 2);
    _tile_loadd(5, w.query.data + 16 * deep + c, deep * 2);
    _tile_loadd(6, keys + c * 16, 64);
    _tile_loadd(7, keys + (deep + c) * 16, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, to, kBlock * 4);
  _tile_stored(1, to + 16, kBlock * 4);
  _tile_stored(2, to + 16 * kBlock, kBlock * 4);
  _tile_stored(3, to + 16 * kBlock + 16, kBlock * 4);
}

// Turns scores into weights 2^(factor * (score - maximum)) and rescales the sums where the maximum rose.
// After every few rows `meanwhile` is called with the number of calls before.
template <typename Meanwhile>
void soften(Worker& w, float* scores, int64_t valid, float factor, int64_t wide, Meanwhile meanwhile) {
  const __m512 slope = _mm512_set1_ps(factor);
  for (int64_t r = 0; r < kRows; ++r) {
    if (r % kRowsPerTurn == 0) meanwhile(r / kRowsPerTurn);
    float* score = scores + r * kBlock;
    for (int64_t c = valid; c < round_up(valid, 32); ++c) score[c] = -std::numeric_limits<float>::infinity();
    const int64_t end = round_up(valid, 32);
    __m512 top = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
    __m512 other = top;
    for (int64_t c = 0; c < end; c += 32) {
      top = _mm512_max_ps(top, _mm512_load_ps(score + c));
      other = _mm512_max_ps(other, _mm512_load_ps(score + c + 16));
    }
    const float maximum = std::max(w.maximum[r], _mm512_reduce_max_ps(_mm512_max_ps(top, other)) * factor);
    if (maximum > w.maximum[r]) {
      const float shrink = std::exp2(w.maximum[r] - maximum);
      w.total[r] *= shrink;
      float* sum = w.sums.data + r * wide;
      for (int64_t c = 0; c < wide; c += 16) {
        _mm512_store_ps(sum + c, _mm512_mul_ps(_mm512_load_ps(sum + c), _mm512_set1_ps(shrink)));
      }
      w.maximum[r] = maximum;
    }
    const __m512 shift = _mm512_set1_ps(maximum);
    __m512 total = _mm512_setzero_ps(), second = total;
    bfloat16* weight = w.weights.data + r * kBlock;
    for (int64_t c = 0; c < end; c += 32) {
      const __m512 low = rough_exp2(_mm512_fmsub_ps(_mm512_load_ps(score + c), slope, shift));
      const __m512 high = rough_exp2(_mm512_fmsub_ps(_mm512_load_ps(score + c + 16), slope, shift));
      total = _mm512_add_ps(total, low);
      second = _mm512_add_ps(second, high);
      _mm512_store_si512(weight + c, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low)));
    }
    w.total[r] += _mm512_reduce_add_ps(_mm512_add_ps(total, second));
  }
}

void multiply_values(const Worker& w, const bfloat16* values, int64_t valid, int64_t wide) {
  const int64_t depth = round_up(valid, 32);
  for (int64_t n = 0; n < wide; n += 32) {
    const bool both = n + 16 < wide;
    float* sum = w.sums.data + n;
    _tile_loadd(0, sum, wide * 4);
    _tile_loadd(2, sum + 16 * wide, wide * 4);
    if (both) {
      _tile_loadd(1, sum + 16, wide * 4);
      _tile_loadd(3, sum + 16 * wide + 16, wide * 4);
    }
    for (int64_t key = 0; key < depth; key += 32) {
      const bfloat16* tile = values + (key / 32 * (wide / 16) + n / 16) * 512;
      _tile_loadd(4, w.weights.data + key, kBlock * 2);
      _tile_loadd(5, w.weights.data + 16 * kBlock + key, kBlock * 2);
      _tile_loadd(6, tile, 64);
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(2, 5, 6);
      if (both) {
        _tile_loadd(7, tile + 512, 64);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(3, 5, 7);
      }
    }
    _tile_stored(0, sum, wide * 4);
    _tile_stored(2, sum + 16 * wide, wide * 4);
    if (both) {
      _tile_stored(1, sum + 16, wide * 4);
      _tile_stored(3, sum + 16 * wide + 16, wide * 4);
    }
  }
}

}  // namespace

template <typename T>
void attention_bfloat16(const Tokens<T>& q, const Tokens<T>& k, const Tokens<T>& v, const AttentionShape& shape,
                        float scale, const AttentionOutput<T>& out) {
  const int64_t deep = round_up(shape.width, 32), wide = round_up(shape.width, 16);
  const int64_t padded = round_up(shape.keys, 32), pairs = shape.batch * shape.heads;
  const int64_t blocks = (shape.queries + kRows - 1) / kRows;
  const float factor = scale * 1.44269504f;
  Buffer<bfloat16> keys(pairs * padded * deep), values(pairs * padded * wide);
#pragma omp parallel
  {
    TileScope tiles;
    Worker w(deep, wide);
#pragma omp for schedule(static)
    for (int64_t pair = 0; pair < pairs; ++pair) {
      const int64_t b = pair / shape.heads, h = pair % shape.heads;
      pack_keys(k, b, h, shape.keys, shape.width, deep, keys.data + pair * padded * deep);
      pack_values(v, b, h, shape.keys, shape.width, wide, values.data + pair * padded * wide);
    }
#pragma omp for schedule(static)
    for (int64_t item = 0; item < pairs * blocks; ++item) {
      const int64_t pair = item / blocks, b = pair / shape.heads, h = pair % shape.heads;
      const int64_t first = item % blocks * kRows, rows = std::min(kRows, shape.queries - first);
      for (int64_t r = 0; r < kRows; ++r) {
        for (int64_t c = 0; c < deep; c += 16) {
          const __mmask16 mask = r < rows ? lanes(std::clamp<int64_t>(shape.width - c, 0, 16)) : 0;
          store(w.query.data + r * deep + c, mask ? load(q.row(b, first + r, h) + c, mask) : _mm512_setzero_ps(), 0xffff);
        }
      }
      std::fill_n(w.sums.data, kRows * wide, 0.0f);
      std::fill_n(w.maximum, kRows, -std::numeric_limits<float>::infinity());
      std::fill_n(w.total, kRows, 0.0f);
      const bfloat16* own_keys = keys.data + pair * padded * deep;
      const auto multiply = [&](int64_t block, int64_t turn) {
        const int64_t key = block * kBlock + turn * 32;
        if (turn < kBlock / 32 && key < shape.keys) {
          multiply_keys(w, own_keys + key * deep, deep, w.scores.data + block % 2 * kRows * kBlock + turn * 32);
        }
      };
      for (int64_t turn = 0; turn < kBlock / 32; ++turn) multiply(0, turn);
      for (int64_t key = 0; key < shape.keys; key += kBlock) {
        const int64_t block = key / kBlock, valid = std::min(kBlock, shape.keys - key);
        float* scores = w.scores.data + block % 2 * kRows * kBlock;
        soften(w, scores, valid, factor, wide, [&](int64_t turn) { multiply(block + 1, turn); });
        multiply_values(w, values.data + (pair * padded + key) * wide, valid, wide);
      }
      for (int64_t r = 0; r < rows; ++r) {
        const __m512 share = _mm512_set1_ps(1.0f / w.total[r]);
        const int64_t start = ((b * shape.queries + first + r) * shape.heads + h) * shape.width;
        for (int64_t c = 0; c < shape.width; c += 16) {
          out.write(start + c, _mm512_mul_ps(_mm512_load_ps(w.sums.data + r * wide + c), share), lanes(shape.width - c));
        }
      }
    }
  }
}

template void attention_bfloat16(const Tokens<float>&, const Tokens<float>&, const Tokens<float>&,
                                 const AttentionShape&, float, const AttentionOutput<float>&);
template void attention_bfloat16(const Tokens<bfloat16>&, const Tokens<bfloat16>&, const Tokens<bfloat16>&,
                                 const AttentionShape&, float, const AttentionOutput<bfloat16>&);

}  // namespace facsimile
