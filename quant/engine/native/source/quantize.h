// Kernels that end in codes: normalization, activation function and quantization in one pass over the data.
#pragma once

#include <cstdint>

#include "vector.h"

namespace facsimile {

// Pictures whose channels lie together: [batch, height, width, channels]. The codes are written inside a frame of
// `frame` rows and columns on every side that holds the zero point.
struct ImageShape {
  int64_t batch, height, width, channels, frame_rows, frame_columns;
};

struct GroupNorm {
  int64_t groups;
  float epsilon;
  bool silu;
  const float* weight;  // [channels]
  const float* bias;    // [channels]
};

// `shift`, [batch, channels] or null, is added before the statistics are taken: the time embedding of a block.
template <typename T>
void group_norm_quantize(const T* x, const T* shift, const ImageShape& shape, const GroupNorm& norm,
                         const Affine& affine, uint8_t* out);

template <typename T>
void image_quantize(const T* x, const ImageShape& shape, const Affine& affine, uint8_t* out);

// Rows of `width` values, `stride` apart. Weight and bias [width].
template <typename T>
void layer_norm_quantize(const T* x, int64_t rows, int64_t width, const float* weight, const float* bias,
                         float epsilon, const Affine& affine, uint8_t* out);

// Rows of 2 * width values: the first half times gelu of the second.
template <typename T>
void geglu_quantize(const T* x, int64_t rows, int64_t width, const Affine& affine, uint8_t* out);

template <typename T>
void rows_quantize(const T* x, int64_t rows, int64_t width, int64_t stride, const Affine& affine, uint8_t* out);

// Symmetric int8 codes of rows, each with its own scale [rows]: largest magnitude / 127.
template <typename T>
void rows_quantize_dynamic(const T* x, int64_t rows, int64_t width, int64_t stride, int8_t* out, float* scale);

// Two 4-bit codes per byte, low nibble first, to one int8 each.
void unpack_nibbles(const uint8_t* packed, int64_t count, int8_t* out);

}  // namespace facsimile
