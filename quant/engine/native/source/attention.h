// Scaled dot-product attention on AMX tiles.
#pragma once

#include <cstdint>

#include "vector.h"

namespace facsimile {

// One of query, key and value: [batch, tokens, heads, width], the last dimension dense. Strides in elements.
template <typename T>
struct Tokens {
  const T* data;
  int64_t batch_stride, token_stride, head_stride;

  const T* row(int64_t b, int64_t token, int64_t h) const {
    return data + b * batch_stride + token * token_stride + h * head_stride;
  }
};

struct AttentionShape {
  int64_t batch, heads, queries, keys, width;
};

// Symmetric scales of query, key and value (codes -top to top), and the largest softmax code: 255 for 8 bits, at most
// 65535.
struct AttentionScales {
  double query, key, value;
  int32_t top, softmax_top;
};

// The result, [batch, queries, heads * width] dense: floats, or codes when `affine` is given.
template <typename T>
struct AttentionOutput {
  T* values;
  uint8_t* codes;
  Affine affine;

  void write(int64_t at, __m512 x, __mmask16 mask) const {
    if (codes != nullptr) {
      store_codes(codes + at, x, affine, mask);
    } else {
      store(values + at, x, mask);
    }
  }
};

template <typename T>
void attention_bfloat16(const Tokens<T>& q, const Tokens<T>& k, const Tokens<T>& v, const AttentionShape& shape,
                        float scale, const AttentionOutput<T>& out);

template <typename T>
void attention_int8(const Tokens<T>& q, const Tokens<T>& k, const Tokens<T>& v, const AttentionShape& shape,
                    float scale, const AttentionScales& scales, const AttentionOutput<T>& out);

}  // namespace facsimile
