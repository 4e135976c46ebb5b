// The kernels as torch operators `facsimile::...`: arguments checked, outputs allocated. Codes are uint8; every operator
// that ends in codes takes the scale, the zero point and the largest code.
#include <ATen/ATen.h>
#include <torch/library.h>

#include <cmath>

#include "attention.h"
#include "quantize.h"

// Exported by libtorch_cpu; its header is not installed.
namespace at::native {
TORCH_API Tensor mkldnn_tensor_from_data_ptr(void* data, IntArrayRef dims, at::ScalarType dtype, at::Device device,
                                             const uint8_t* layout, int64_t layout_size);
}

namespace {

namespace fm = facsimile;
using at::Tensor;
using std::optional;

// Calls `body` with a null pointer of the kernels' element type for the dtype of `x`.
template <typename Body>
void with_element(const Tensor& x, Body body) {
  if (x.scalar_type() == at::kFloat) {
    body(static_cast<const float*>(nullptr));
  } else if (x.scalar_type() == at::kBFloat16) {
    body(static_cast<const fm::bfloat16*>(nullptr));
  } else {
    TORCH_CHECK(false, "float32 or bfloat16 is needed, got ", x.scalar_type());
  }
}

template <typename T>
const T* data(const Tensor& x) {
  return static_cast<const T*>(x.const_data_ptr());
}

fm::Affine affine(double scale, int64_t zero_point, int64_t top) {
  const float inverse = static_cast<float>(1.0 / scale);
  TORCH_CHECK(scale > 0.0 && std::isfinite(inverse), "scale must be a positive normal number, got ", scale);
  TORCH_CHECK(0 < top && top <= 255 && 0 <= zero_point && zero_point <= top, "zero point ", zero_point,
              " must lie in 0..", top, ", and that below 256");
  return {inverse, static_cast<int32_t>(zero_point), static_cast<int32_t>(top)};
}

Tensor channels_last(const Tensor& x) {
  TORCH_CHECK(x.dim() == 4, "a picture is [B, C, H, W]");
  return x.contiguous(at::MemoryFormat::ChannelsLast);
}

Tensor framed_codes(const Tensor& x, int64_t rows, int64_t columns) {
  TORCH_CHECK(rows >= 0 && columns >= 0, "a frame has no negative size");
  return at::empty({x.size(0), x.size(1), x.size(2) + 2 * rows, x.size(3) + 2 * columns},
                   x.options().dtype(at::kByte).memory_format(at::MemoryFormat::ChannelsLast));
}

fm::ImageShape image_shape(const Tensor& x, int64_t rows, int64_t columns) {
  return {x.size(0), x.size(2), x.size(3), x.size(1), rows, columns};
}

Tensor group_norm_quantize(const Tensor& input, const optional<Tensor>& shift, const Tensor& weight, const Tensor& bias,
                           int64_t groups, double epsilon, bool silu, double scale, int64_t zero_point, int64_t top,
                           int64_t frame_rows, int64_t frame_columns) {
  const Tensor x = channels_last(input);
  const int64_t channels = x.size(1);
  TORCH_CHECK(groups > 0 && channels % groups == 0, channels, " channels do not divide into ", groups, " groups");
  TORCH_CHECK(weight.numel() == channels && bias.numel() == channels, "weight and bias have one value per channel");
  const Tensor w = weight.to(at::kFloat).contiguous(), b = bias.to(at::kFloat).contiguous();
  Tensor added;
  if (shift.has_value()) {
    TORCH_CHECK(shift->dim() == 2 && shift->size(0) == x.size(0) && shift->size(1) == channels, "shift is [B, C]");
    added = shift->to(x.scalar_type()).contiguous();
  }
  Tensor out = framed_codes(x, frame_rows, frame_columns);
  if (out.numel() == 0) return out;
  const fm::GroupNorm norm{groups, static_cast<float>(epsilon), silu, data<float>(w), data<float>(b)};
  with_element(x, [&](auto* element) {
    using T = std::remove_cv_t<std::remove_pointer_t<decltype(element)>>;
    fm::group_norm_quantize<T>(data<T>(x), added.defined() ? data<T>(added) : nullptr,
                               image_shape(x, frame_rows, frame_columns), norm, affine(scale, zero_point, top),
                               out.mutable_data_ptr<uint8_t>());
  });
  return out;
}

Tensor quantize_image(const Tensor& input, double scale, int64_t zero_point, int64_t top, int64_t frame_rows,
                      int64_t frame_columns) {
  const Tensor x = channels_last(input);
  Tensor out = framed_codes(x, frame_rows, frame_columns);
  with_element(x, [&](auto* element) {
    using T = std::remove_cv_t<std::remove_pointer_t<decltype(element)>>;
    fm::image_quantize<T>(data<T>(x), image_shape(x, frame_rows, frame_columns), affine(scale, zero_point, top),
                          out.mutable_data_ptr<uint8_t>());
  });
  return out;
}

int64_t rows_of(const Tensor& x) { return x.size(-1) == 0 ? 0 : x.numel() / x.size(-1); }

Tensor layer_norm_quantize(const Tensor& input, const Tensor& weight, const Tensor& bias, double epsilon, double scale,
                           int64_t zero_point, int64_t top) {
  const Tensor x = input.contiguous();
  TORCH_CHECK(weight.numel() == x.size(-1) && bias.numel() == x.size(-1), "weight and bias have one value per column");
  const Tensor w = weight.to(at::kFloat).contiguous(), b = bias.to(at::kFloat).contiguous();
  Tensor out = at::empty(x.sizes(), x.options().dtype(at::kByte));
  with_element(x, [&](auto* element) {
    using T = std::remove_cv_t<std::remove_pointer_t<decltype(element)>>;
    fm::layer_norm_quantize<T>(data<T>(x), rows_of(x), x.size(-1), data<float>(w), data<float>(b),
                               static_cast<float>(epsilon), affine(scale, zero_point, top),
                               out.mutable_data_ptr<uint8_t>());
  });
  return out;
}

Tensor geglu_quantize(const Tensor& input, double scale, int64_t zero_point, int64_t top) {
  const Tensor x = input.contiguous();
  TORCH_CHECK(x.size(-1) % 2 == 0, "a value and a gate are needed for each output");
  auto sizes = x.sizes().vec();
  sizes.back() /= 2;
  Tensor out = at::empty(sizes, x.options().dtype(at::kByte));
  with_element(x, [&](auto* element) {
    using T = std::remove_cv_t<std::remove_pointer_t<decltype(element)>>;
    fm::geglu_quantize<T>(data<T>(x), rows_of(x), sizes.back(), affine(scale, zero_point, top),
                          out.mutable_data_ptr<uint8_t>());
  });
  return out;
}

Tensor quantize_rows(const Tensor& input, double scale, int64_t zero_point, int64_t top) {
  const Tensor x = input.contiguous();
  Tensor out = at::empty(x.sizes(), x.options().dtype(at::kByte));
  with_element(x, [&](auto* element) {
    using T = std::remove_cv_t<std::remove_pointer_t<decltype(element)>>;
    fm::rows_quantize<T>(data<T>(x), rows_of(x), x.size(-1), x.size(-1), affine(scale, zero_point, top),
                         out.mutable_data_ptr<uint8_t>());
  });
  return out;
}

std::tuple<Tensor, Tensor> quantize_rows_dynamic(const Tensor& input) {
  const Tensor x = input.contiguous();
  Tensor out = at::empty(x.sizes(), x.options().dtype(at::kChar));
  Tensor scale = at::empty(x.sizes().slice(0, x.dim() - 1), x.options().dtype(at::kFloat));
  with_element(x, [&](auto* element) {
    using T = std::remove_cv_t<std::remove_pointer_t<decltype(element)>>;
    fm::rows_quantize_dynamic<T>(data<T>(x), rows_of(x), x.size(-1), x.size(-1), out.mutable_data_ptr<int8_t>(),
                                 scale.mutable_data_ptr<float>());
  });
  return {out, scale};
}

template <typename T>
fm::Tokens<T> tokens(const Tensor& x) {
  return {data<T>(x), x.stride(0), x.stride(1), x.stride(2)};
}

fm::AttentionShape attention_shape(const Tensor& q, const Tensor& k, const Tensor& v) {
  TORCH_CHECK(q.dim() == 4 && k.dim() == 4 && v.dim() == 4, "query, key and value are [B, L, H, D]");
  TORCH_CHECK(k.sizes() == v.sizes(), "key ", k.sizes(), " and value ", v.sizes(), " differ");
  TORCH_CHECK(q.size(0) == k.size(0) && q.size(2) == k.size(2) && q.size(3) == k.size(3), "query ", q.sizes(),
              " does not go with key ", k.sizes());
  TORCH_CHECK(k.size(1) > 0, "attention needs at least one key");
  TORCH_CHECK(q.stride(3) == 1 && k.stride(3) == 1 && v.stride(3) == 1, "the last dimension must be dense");
  TORCH_CHECK(q.scalar_type() == k.scalar_type() && k.scalar_type() == v.scalar_type(), "dtypes differ");
  TORCH_CHECK(q.size(3) <= 1024, "a head is at most 1024 wide");
  return {q.size(0), q.size(2), q.size(1), k.size(1), q.size(3)};
}

template <typename Run>
Tensor run_attention(const Tensor& q, const Tensor& k, const Tensor& v, optional<double> out_scale, int64_t zero_point,
                     int64_t top, Run run) {
  const fm::AttentionShape shape = attention_shape(q, k, v);
  const auto dtype = out_scale.has_value() ? at::kByte : q.scalar_type();
  Tensor out = at::empty({shape.batch, shape.queries, shape.heads * shape.width}, q.options().dtype(dtype));
  with_element(q, [&](auto* element) {
    using T = std::remove_cv_t<std::remove_pointer_t<decltype(element)>>;
    fm::AttentionOutput<T> to{};
    if (out_scale.has_value()) {
      to.codes = out.mutable_data_ptr<uint8_t>();
      to.affine = affine(*out_scale, zero_point, top);
    } else {
      to.values = static_cast<T*>(out.mutable_data_ptr());
    }
    run(tokens<T>(q), tokens<T>(k), tokens<T>(v), shape, to);
  });
  return out;
}

Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, double scale, optional<double> out_scale,
                 int64_t zero_point, int64_t top) {
  return run_attention(q, k, v, out_scale, zero_point, top,
                       [&](auto tq, auto tk, auto tv, const fm::AttentionShape& shape, auto to) {
                         fm::attention_bfloat16(tq, tk, tv, shape, static_cast<float>(scale), to);
                       });
}

Tensor integer_attention(const Tensor& q, const Tensor& k, const Tensor& v, double scale, double query_scale,
                         double key_scale, double value_scale, int64_t top, int64_t softmax_top,
                         optional<double> out_scale, int64_t zero_point, int64_t out_top) {
  TORCH_CHECK(0 < top && top <= 127 && 0 < softmax_top && softmax_top <= 65535, "codes reach to ", top, " and ",
              softmax_top, ", allowed are 127 and 65535");
  TORCH_CHECK(query_scale > 0 && key_scale > 0 && value_scale > 0, "scales must be positive");
  const fm::AttentionScales scales{query_scale, key_scale, value_scale, static_cast<int32_t>(top),
                                   static_cast<int32_t>(softmax_top)};
  return run_attention(q, k, v, out_scale, zero_point, out_top,
                       [&](auto tq, auto tk, auto tv, const fm::AttentionShape& shape, auto to) {
                         fm::attention_int8(tq, tk, tv, shape, static_cast<float>(scale), scales, to);
                       });
}

// The oneDNN weight whose bytes were packed: `codes` of them as nibbles, then `tail` as they were. It lies in `scratch`
// until the next call. `layout` is oneDNN's description of it, `sizes` its dimensions.
Tensor unpack_weight(const Tensor& packed, const Tensor& tail, int64_t codes, at::IntArrayRef sizes, const Tensor& layout,
                     const Tensor& scratch) {
  TORCH_CHECK(packed.numel() == (codes + 1) / 2, packed.numel(), " bytes cannot hold ", codes, " nibbles");
  TORCH_CHECK(scratch.scalar_type() == at::kChar && scratch.numel() >= codes + tail.numel(), "scratch is too small");
  int8_t* to = scratch.mutable_data_ptr<int8_t>();
  fm::unpack_nibbles(packed.const_data_ptr<uint8_t>(), codes, to);
  std::memcpy(to + codes, tail.const_data_ptr<uint8_t>(), tail.numel());
  return at::native::mkldnn_tensor_from_data_ptr(to, sizes, at::kChar, at::kCPU, layout.const_data_ptr<uint8_t>(),
                                                 layout.numel());
}

// The bytes of an opaque oneDNN weight that lies at `address`.
Tensor copy_bytes(int64_t address, int64_t size) {
  Tensor out = at::empty({size}, at::TensorOptions().dtype(at::kByte));
  std::memcpy(out.mutable_data_ptr<uint8_t>(), reinterpret_cast<const void*>(address), size);
  return out;
}

}  // namespace

TORCH_LIBRARY(facsimile, m) {
  m.def("group_norm_quantize(Tensor x, Tensor? shift, Tensor weight, Tensor bias, int groups, float epsilon, bool silu, "
        "float scale, int zero_point, int top, int frame_rows, int frame_columns) -> Tensor", group_norm_quantize);
  m.def("quantize_image(Tensor x, float scale, int zero_point, int top, int frame_rows, int frame_columns) -> Tensor",
        quantize_image);
  m.def("layer_norm_quantize(Tensor x, Tensor weight, Tensor bias, float epsilon, float scale, int zero_point, int top) "
        "-> Tensor", layer_norm_quantize);
  m.def("geglu_quantize(Tensor x, float scale, int zero_point, int top) -> Tensor", geglu_quantize);
  m.def("quantize_rows(Tensor x, float scale, int zero_point, int top) -> Tensor", quantize_rows);
  m.def("quantize_rows_dynamic(Tensor x) -> (Tensor, Tensor)", quantize_rows_dynamic);
  m.def("attention(Tensor q, Tensor k, Tensor v, float scale, float? out_scale=None, int zero_point=0, int top=255) "
        "-> Tensor", attention);
  m.def("integer_attention(Tensor q, Tensor k, Tensor v, float scale, float query_scale, float key_scale, float "
        "value_scale, int top, int softmax_top, float? out_scale=None, int zero_point=0, int out_top=255) -> Tensor",
        integer_attention);
  m.def("unpack_weight(Tensor packed, Tensor tail, int codes, int[] sizes, Tensor layout, Tensor scratch) -> Tensor",
        unpack_weight);
  m.def("copy_bytes(int address, int size) -> Tensor", copy_bytes);
}
