// Group normalization, SiLU and quantization of channels-last pictures: one pass for the statistics, one for the codes.
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "quantize.h"

namespace facsimile {
namespace {

constexpr int64_t kPixels = 64;  // pixels whose sums are kept in float32 before they join the float64 ones

// Sums and sums of squares per channel, of the differences from the picture's first pixel: no digits are lost to a mean
// that is large beside the deviation.
template <typename T>
void channel_moments(const T* x, const T* origin, int64_t pixels, int64_t channels, float* sum, float* square) {
  std::fill_n(sum, channels, 0.0f);
  std::fill_n(square, channels, 0.0f);
  for (int64_t c = 0; c < channels; c += 64) {
    const int64_t vectors = std::min<int64_t>(4, (channels - c + 15) / 16);
    __m512 s[4], q[4], o[4];
    for (int64_t i = 0; i < vectors; ++i) {
      s[i] = q[i] = _mm512_setzero_ps();
      o[i] = load(origin + c + 16 * i, lanes(channels - c - 16 * i));
    }
    for (int64_t p = 0; p < pixels; ++p) {
      for (int64_t i = 0; i < vectors; ++i) {
        const __m512 y = _mm512_sub_ps(load(x + p * channels + c + 16 * i, lanes(channels - c - 16 * i)), o[i]);
        s[i] = _mm512_add_ps(s[i], y);
        q[i] = _mm512_fmadd_ps(y, y, q[i]);
      }
    }
    for (int64_t i = 0; i < vectors; ++i) {
      store(sum + c + 16 * i, s[i], lanes(channels - c - 16 * i));
      store(square + c + 16 * i, q[i], lanes(channels - c - 16 * i));
    }
  }
}

float as_float(float x) { return x; }
float as_float(bfloat16 x) {
  const uint32_t bits = static_cast<uint32_t>(x) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// slope and offset per channel such that the normalized value is x * slope + offset, the shift included.
template <typename T>
void affine_of_channels(const T* origin, const T* shift, const double* sum, const double* square, int64_t pixels,
                        int64_t channels, const GroupNorm& norm, float* slope, float* offset) {
  const int64_t size = channels / norm.groups;
  const double count = static_cast<double>(pixels);
  for (int64_t g = 0; g < norm.groups; ++g) {
    double mean = 0.0;
    for (int64_t c = g * size; c < (g + 1) * size; ++c) {
      mean += as_float(origin[c]) + (shift ? as_float(shift[c]) : 0.0) + sum[c] / count;
    }
    mean /= static_cast<double>(size);
    double variance = 0.0;
    for (int64_t c = g * size; c < (g + 1) * size; ++c) {
      const double own = as_float(origin[c]) + (shift ? as_float(shift[c]) : 0.0) + sum[c] / count;
      variance += square[c] / count - (sum[c] / count) * (sum[c] / count) + (own - mean) * (own - mean);
    }
    const double inverse = 1.0 / std::sqrt(std::max(variance / static_cast<double>(size), 0.0) + norm.epsilon);
    for (int64_t c = g * size; c < (g + 1) * size; ++c) {
      const double factor = inverse * norm.weight[c];
      slope[c] = static_cast<float>(factor);
      offset[c] = static_cast<float>(norm.bias[c] + factor * ((shift ? as_float(shift[c]) : 0.0) - mean));
    }
  }
}

template <bool kSilu, typename T>
void row_codes(const T* x, int64_t pixels, int64_t channels, const float* slope, const float* offset,
               const Affine& affine, uint8_t* out) {
  for (int64_t p = 0; p < pixels; ++p) {
    for (int64_t c = 0; c < channels; c += 16) {
      const __mmask16 mask = lanes(channels - c);
      __m512 y = _mm512_fmadd_ps(load(x + p * channels + c, mask), load(slope + c, mask), load(offset + c, mask));
      if constexpr (kSilu) y = silu(y);
      store_codes(out + p * channels + c, y, affine, mask);
    }
  }
}

// Where row `y` of picture `b` starts in the framed codes; fills the frame around the row.
uint8_t* framed_row(const ImageShape& shape, int64_t b, int64_t y, int32_t zero_point, uint8_t* out) {
  const int64_t rows = shape.height + 2 * shape.frame_rows, columns = shape.width + 2 * shape.frame_columns;
  uint8_t* line = out + (b * rows + y + shape.frame_rows) * columns * shape.channels;
  const int64_t side = shape.frame_columns * shape.channels;
  std::memset(line, zero_point, side);
  std::memset(line + side + shape.width * shape.channels, zero_point, side);
  return line + side;
}

void fill_frame_rows(const ImageShape& shape, int32_t zero_point, uint8_t* out) {
  const int64_t rows = shape.height + 2 * shape.frame_rows, columns = shape.width + 2 * shape.frame_columns;
  const int64_t band = shape.frame_rows * columns * shape.channels, picture = rows * columns * shape.channels;
  for (int64_t b = 0; b < shape.batch; ++b) {
    std::memset(out + b * picture, zero_point, band);
    std::memset(out + (b + 1) * picture - band, zero_point, band);
  }
}

}  // namespace

template <typename T>
void group_norm_quantize(const T* x, const T* shift, const ImageShape& shape, const GroupNorm& norm,
                         const Affine& affine, uint8_t* out) {
  const int64_t pixels = shape.height * shape.width, channels = shape.channels;
  const int64_t chunks = (pixels + kPixels - 1) / kPixels;
  std::vector<float> partial(shape.batch * chunks * channels * 2), slope(shape.batch * channels), offset(slope.size());
  fill_frame_rows(shape, affine.zero_point, out);
#pragma omp parallel
  {
#pragma omp for schedule(static)
    for (int64_t item = 0; item < shape.batch * chunks; ++item) {
      const int64_t b = item / chunks, first = item % chunks * kPixels;
      const T* picture = x + b * pixels * channels;
      float* to = partial.data() + item * channels * 2;
      channel_moments(picture + first * channels, picture, std::min(kPixels, pixels - first), channels, to, to + channels);
    }
#pragma omp for schedule(static)
    for (int64_t b = 0; b < shape.batch; ++b) {
      std::vector<double> sum(channels), square(channels);
      for (int64_t chunk = 0; chunk < chunks; ++chunk) {
        const float* from = partial.data() + (b * chunks + chunk) * channels * 2;
        for (int64_t c = 0; c < channels; ++c) sum[c] += from[c], square[c] += from[channels + c];
      }
      affine_of_channels(x + b * pixels * channels, shift ? shift + b * channels : nullptr, sum.data(), square.data(),
                         pixels, channels, norm, slope.data() + b * channels, offset.data() + b * channels);
    }
#pragma omp for schedule(static)
    for (int64_t item = 0; item < shape.batch * shape.height; ++item) {
      const int64_t b = item / shape.height, y = item % shape.height;
      uint8_t* to = framed_row(shape, b, y, affine.zero_point, out);
      const T* from = x + item * shape.width * channels;
      const auto run = norm.silu ? row_codes<true, T> : row_codes<false, T>;
      run(from, shape.width, channels, slope.data() + b * channels, offset.data() + b * channels, affine, to);
    }
  }
}

template <typename T>
void image_quantize(const T* x, const ImageShape& shape, const Affine& affine, uint8_t* out) {
  fill_frame_rows(shape, affine.zero_point, out);
#pragma omp parallel for schedule(static)
  for (int64_t item = 0; item < shape.batch * shape.height; ++item) {
    uint8_t* to = framed_row(shape, item / shape.height, item % shape.height, affine.zero_point, out);
    const T* from = x + item * shape.width * shape.channels;
    for (int64_t c = 0; c < shape.width * shape.channels; c += 16) {
      const __mmask16 mask = lanes(shape.width * shape.channels - c);
      store_codes(to + c, load(from + c, mask), affine, mask);
    }
  }
}

template void group_norm_quantize(const float*, const float*, const ImageShape&, const GroupNorm&, const Affine&, uint8_t*);
template void group_norm_quantize(const bfloat16*, const bfloat16*, const ImageShape&, const GroupNorm&, const Affine&, uint8_t*);
template void image_quantize(const float*, const ImageShape&, const Affine&, uint8_t*);
template void image_quantize(const bfloat16*, const ImageShape&, const Affine&, uint8_t*);

}  // namespace facsimile
