// Fake quantization and its gradients, one pass over the data each. Rows share a scale: the samples of a batch, or the
// output channels of a weight.
#include <ATen/ATen.h>
#include <torch/library.h>

#include "vector.h"

namespace {

namespace fm = facsimile;
using at::Tensor;

// What the values of one row become: codes from `low` to `high` of width `scale`. A scale of 0 leaves the row alone.
struct Row {
  float scale, inverse, low, high;
};

__m512 rounded(__m512 scaled) { return _mm512_roundscale_ps(scaled, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

// The second operand is returned for NaN, so a value that is no number stays one.
__m512 clipped(__m512 codes, const Row& row) {
  return _mm512_min_ps(_mm512_set1_ps(row.high), _mm512_max_ps(_mm512_set1_ps(row.low), codes));
}

template <typename T>
void forward_row(const T* x, int64_t width, const Row& row, T* out) {
  const __m512 inverse = _mm512_set1_ps(row.inverse), scale = _mm512_set1_ps(row.scale);
  for (int64_t c = 0; c < width; c += 16) {
    const __mmask16 mask = fm::lanes(width - c);
    const __m512 value = fm::load(x + c, mask);
    const __m512 codes = clipped(rounded(_mm512_mul_ps(value, inverse)), row);
    fm::store(out + c, row.scale == 0.0f ? value : _mm512_mul_ps(codes, scale), mask);
  }
}

// Straight through inside the range, nothing outside of it; returns the row's gradient of the scale.
template <typename T>
float backward_row(const T* gradient, const T* x, int64_t width, const Row& row, T* out) {
  const __m512 inverse = _mm512_set1_ps(row.inverse), low = _mm512_set1_ps(row.low), high = _mm512_set1_ps(row.high);
  double total = 0.0;
  for (int64_t start = 0; start < width; start += 4096) {  // floats in between would lose digits of long sums
    __m512 sum = _mm512_setzero_ps();
    for (int64_t c = start; c < std::min(width, start + 4096); c += 16) {
      const __mmask16 mask = fm::lanes(width - c);
      const __m512 g = fm::load(gradient + c, mask), scaled = _mm512_mul_ps(fm::load(x + c, mask), inverse);
      const __mmask16 inside = row.scale == 0.0f ? 0xffff
                                                 : _mm512_cmp_ps_mask(scaled, low, _CMP_GE_OQ) &
                                                       _mm512_cmp_ps_mask(scaled, high, _CMP_LE_OQ);
      const __m512 codes = clipped(rounded(scaled), row);
      sum = _mm512_fmadd_ps(g, _mm512_mask_sub_ps(codes, inside, codes, scaled), sum);
      fm::store(out + c, _mm512_maskz_mov_ps(inside, g), mask);
    }
    total += _mm512_reduce_add_ps(sum);
  }
  return row.scale == 0.0f ? 0.0f : static_cast<float>(total);
}

std::vector<Row> rows_of(const Tensor& scale, const Tensor& low, const Tensor& high) {
  std::vector<Row> rows(scale.numel());
  const float *s = scale.const_data_ptr<float>(), *l = low.const_data_ptr<float>(), *h = high.const_data_ptr<float>();
  for (size_t r = 0; r < rows.size(); ++r) {
    rows[r] = {s[r], s[r] == 0.0f ? 0.0f : static_cast<float>(1.0 / static_cast<double>(s[r])), l[r], h[r]};
  }
  return rows;
}

void check(const Tensor& x, const Tensor& scale, const Tensor& low, const Tensor& high) {
  TORCH_CHECK(x.is_non_overlapping_and_dense() && x.dim() > 0 && x.size(0) == scale.numel(),
              "values are dense, with a row for every scale");
  for (const Tensor* t : {&scale, &low, &high}) {
    TORCH_CHECK(t->scalar_type() == at::kFloat && t->is_contiguous() && t->numel() == scale.numel(),
                "scale and ends are float32, one of each per row");
  }
  TORCH_CHECK(x.size(0) <= 1 || x.stride(0) * x.size(0) == x.numel(), "the rows lie one after the other");
}

template <typename Body>
void for_element(const Tensor& x, Body body) {
  if (x.scalar_type() == at::kFloat) return body(float{});
  TORCH_CHECK(x.scalar_type() == at::kBFloat16, "float32 or bfloat16 is needed, got ", x.scalar_type());
  body(fm::bfloat16{});
}

Tensor fake_quantize(const Tensor& x, const Tensor& scale, const Tensor& low, const Tensor& high) {
  check(x, scale, low, high);
  Tensor out = at::empty_like(x);
  if (x.numel() == 0) return out;
  const auto rows = rows_of(scale, low, high);
  const int64_t width = x.numel() / x.size(0);
  for_element(x, [&](auto element) {
    using T = decltype(element);
    const T* from = static_cast<const T*>(x.const_data_ptr());
    T* to = static_cast<T*>(out.mutable_data_ptr());
#pragma omp parallel for schedule(static)
    for (size_t r = 0; r < rows.size(); ++r) forward_row(from + r * width, width, rows[r], to + r * width);
  });
  return out;
}

std::tuple<Tensor, Tensor> fake_quantize_backward(const Tensor& gradient, const Tensor& x, const Tensor& scale,
                                                  const Tensor& low, const Tensor& high) {
  check(x, scale, low, high);
  TORCH_CHECK(gradient.strides() == x.strides() && gradient.scalar_type() == x.scalar_type(),
              "the gradient lies in memory as the values do");
  Tensor out = at::empty_like(x), steps = at::zeros_like(scale);
  if (x.numel() == 0) return {out, steps};
  const auto rows = rows_of(scale, low, high);
  const int64_t width = x.numel() / x.size(0);
  float* step = steps.mutable_data_ptr<float>();
  for_element(x, [&](auto element) {
    using T = decltype(element);
    const T *g = static_cast<const T*>(gradient.const_data_ptr()), *from = static_cast<const T*>(x.const_data_ptr());
    T* to = static_cast<T*>(out.mutable_data_ptr());
#pragma omp parallel for schedule(static)
    for (size_t r = 0; r < rows.size(); ++r) {
      step[r] = backward_row(g + r * width, from + r * width, width, rows[r], to + r * width);
    }
  });
  return {out, steps};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(facsimile, m) {
  m.def("fake_quantize(Tensor x, Tensor scale, Tensor low, Tensor high) -> Tensor", fake_quantize);
  m.def("fake_quantize_backward(Tensor gradient, Tensor x, Tensor scale, Tensor low, Tensor high) -> (Tensor, Tensor)",
        fake_quantize_backward);
}
