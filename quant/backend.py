"""Our quantization as a backend of diffusers: after `import quant`, `from_pretrained` loads our checkpoints by itself.

diffusers has no registration call: a backend is two dictionary entries, written at the end of this file."""

from __future__ import annotations

from enum import Enum
from typing import Any

import torch
from diffusers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING, AUTO_QUANTIZER_MAPPING
from diffusers.quantizers.base import DiffusersQuantizer
from diffusers.quantizers.quantization_config import QuantizationConfigMixin
from torch import Tensor, nn

from quant.errors import CheckpointError
from quant.layers import empty_like, plan_layers, quantized_layers, replace_layer

FORMAT_VERSION = 1


class Method(str, Enum):  # noqa: UP042  diffusers reads `.value` and compares with plain strings
    """Our name in `quantization_config.quant_method`."""

    FACSIMILE = "facsimile"


class FacsimileConfig(QuantizationConfigMixin):  # type: ignore[misc]
    """What config.json must say so that the layers can be laid out before their tensors are read."""

    def __init__(
        self,
        weight_bits: int = 8,
        activation_bits: int = 8,
        keep_float: list[str] | None = None,
        eight_bit: list[str] | None = None,
        format_version: int = FORMAT_VERSION,
        **_: Any,
    ) -> None:
        self.quant_method = Method.FACSIMILE
        self.weight_bits = weight_bits
        self.activation_bits = activation_bits
        self.keep_float = list(keep_float or [])
        self.eight_bit = list(eight_bit or [])
        self.format_version = format_version

    def to_diff_dict(self) -> dict[str, Any]:
        """What diffusers prints in its logs: everything."""
        return self.to_dict()

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return vars(self) | {"quant_method": self.quant_method.value}


class FacsimileQuantizer(DiffusersQuantizer):  # type: ignore[misc]
    """Lays out quantized layers before loading and takes their tensors as they are stored, without a cast."""

    use_keep_in_fp32_modules = False
    supports_parallel_loading = False

    def validate_environment(self, *args: Any, **kwargs: Any) -> None:
        """Refuses a checkpoint of a newer format, and quantizing without calibration."""
        version = self.quantization_config.format_version
        if version > FORMAT_VERSION:
            raise CheckpointError(f"checkpoint format {version} is newer than {FORMAT_VERSION}: update this package")
        if not self.pre_quantized:
            raise CheckpointError("a model is quantized by calibration (`python -m quant quantize`), not while loading")

    def update_torch_dtype(self, torch_dtype: torch.dtype | None) -> torch.dtype:
        """float32 unless another is asked for."""
        return torch_dtype or torch.float32

    def _process_model_before_weight_loading(self, model: nn.Module, **kwargs: Any) -> None:
        config = self.quantization_config
        plan = plan_layers(model, config.weight_bits, config.keep_float, config.eight_bit)
        with torch.device("meta"):
            for name, bits in plan.bits.items():
                replace_layer(model, name, empty_like(model.get_submodule(name), bits))

    def check_if_quantized_param(
        self, model: nn.Module, param_value: Tensor, param_name: str, state_dict: dict[str, Tensor], **kwargs: Any
    ) -> bool:
        """True for every tensor of a quantized layer: fp32 scales must not be cast to the model's dtype."""
        return param_name.rpartition(".")[0] in quantized_layers(model)

    def check_quantized_param_shape(self, param_name: str, current_param: Tensor, loaded_param: Tensor) -> bool:
        """Called for a mismatch only."""
        raise CheckpointError(
            f"{param_name} has shape {tuple(loaded_param.shape)}, wanted {tuple(getattr(current_param, 'shape', ()))}"
        )

    def create_quantized_param(
        self,
        model: nn.Module,
        param_value: Tensor,
        param_name: str,
        target_device: torch.device,
        state_dict: dict[str, Tensor],
        unexpected_keys: list[str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Stores the raw tensor. Raises CheckpointError on another dtype than the layer's."""
        layer, _, tensor = param_name.rpartition(".")
        stored, buffers = state_dict[param_name], dict(model.get_submodule(layer).named_buffers())
        if stored.dtype != buffers[tensor].dtype:
            raise CheckpointError(f"{param_name} is {stored.dtype}, wanted {buffers[tensor].dtype}")
        setattr(model.get_submodule(layer), tensor, stored.to(target_device))

    def _process_model_after_weight_loading(self, model: nn.Module, **kwargs: Any) -> None:
        missing = [name for name, tensor in model.state_dict().items() if tensor.is_meta]
        if missing:
            raise CheckpointError(f"the checkpoint lacks {len(missing)} tensors, the first is {missing[0]}")
        for name, layer in quantized_layers(model).items():
            try:
                layer.check()
            except CheckpointError as error:
                raise CheckpointError(f"{name}: {error}") from error

    def _dequantize(self, model: nn.Module) -> nn.Module:
        for name, layer in quantized_layers(model).items():
            replace_layer(model, name, layer.dequantized())
        return model

    @property
    def is_serializable(self) -> bool:
        """Checkpoints are plain safetensors."""
        return True

    @property
    def is_trainable(self) -> bool:
        """Integer codes have no gradient."""
        return False


AUTO_QUANTIZER_MAPPING[Method.FACSIMILE.value] = FacsimileQuantizer
AUTO_QUANTIZATION_CONFIG_MAPPING[Method.FACSIMILE.value] = FacsimileConfig
