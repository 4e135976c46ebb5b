"""Our quantization as a backend of diffusers: after `import facsimile`, `from_pretrained` loads our checkpoints.

diffusers has no registration call: a backend is two dictionary entries, which `quant.checkpoints.registration` makes
and the end of this file fills, and a few methods (`quant.layers.diffusers_methods`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from difflib import get_close_matches
from enum import Enum
from typing import Any

import torch
from diffusers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING, AUTO_QUANTIZER_MAPPING
from diffusers.quantizers.base import DiffusersQuantizer
from diffusers.quantizers.quantization_config import QuantizationConfigMixin
from torch import Tensor, nn

from quant.checkpoints.conversion import dequantize, quantize_dynamically
from quant.checkpoints.layout import Layout, finish, lay_out, stored_modules
from quant.checkpoints.registration import FORMAT
from quant.errors import CheckpointError, QuantError, RecipeMismatch
from quant.layers.diffusers_methods import install
from quant.layers.fusion import fuse

FORMAT_VERSION = 2
_NEW = ("time_bits", "time_deltas")
"""Fields that releases before 0.3.0 do not know: left out where they say nothing."""
_TABLES = ("input_scale", "input_zero_point", "input_bits", "query_scale", "key_scale", "value_scale")


class Method(str, Enum):  # noqa: UP042  diffusers reads `.value` and compares with plain strings
    """Our name in `quantization_config.quant_method`."""

    FACSIMILE = FORMAT


class FacsimileConfig(QuantizationConfigMixin):  # type: ignore[misc]
    """What config.json must say so that the layers can be laid out before their tensors are read: a `Layout`."""

    def __init__(self, format_version: int = FORMAT_VERSION, **fields: Any) -> None:
        """Raises RecipeMismatch for a field that a layout does not have, or a value that makes no sense."""
        self.quant_method = Method.FACSIMILE
        self.format_version = format_version
        known = {name: value for name, value in fields.items() if name in Layout.__dataclass_fields__}
        if format_version == FORMAT_VERSION:  # another version is refused by the quantizer, with a sentence
            _refuse_unknown(fields.keys() - known.keys() - {"quant_method"})
            known = asdict(Layout(**known))
        for name, value in known.items():
            setattr(self, name, list(value) if isinstance(value, tuple) else value)

    @property
    def layout(self) -> Layout:
        """The fields as a layout."""
        fields: dict[str, Any] = {name: getattr(self, name) for name in Layout.__dataclass_fields__}
        return Layout(**fields | {name: tuple(value) for name, value in fields.items() if isinstance(value, list)})

    def to_diff_dict(self) -> dict[str, Any]:
        """What diffusers prints in its logs: everything."""
        return self.to_dict()

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        fields = {name: value for name, value in vars(self).items() if name not in _NEW or value not in (None, False)}
        return fields | {"quant_method": self.quant_method.value}


class FacsimileQuantizer(DiffusersQuantizer):  # type: ignore[misc]
    """Lays out quantized layers before loading and takes their tensors as they are stored, without a cast."""

    quantization_config: FacsimileConfig
    use_keep_in_fp32_modules = False
    supports_parallel_loading = False

    def validate_environment(self, *args: Any, **kwargs: Any) -> None:
        """Refuses a checkpoint of another format, and quantizing without calibration."""
        version = self.quantization_config.format_version
        if type(version) is not int or version > FORMAT_VERSION:
            raise CheckpointError(f"checkpoint format {version} is newer than {FORMAT_VERSION}: update this package")
        if version < FORMAT_VERSION:
            raise CheckpointError(
                f"checkpoint format {version} is older than {FORMAT_VERSION}: calibrate the model again"
            )
        if not self.pre_quantized and not self.quantization_config.dynamic_activations:
            raise CheckpointError(
                "calibrated scales come from `facsimile quantize`; while loading, a model can be quantized with "
                "dynamic_activations=True only: linear layers with a scale per token"
            )

    def update_torch_dtype(self, torch_dtype: torch.dtype | None) -> torch.dtype:
        """float32 unless another is asked for."""
        return torch_dtype or torch.float32

    def _process_model_before_weight_loading(self, model: nn.Module, **kwargs: Any) -> None:
        self._claimed: frozenset[str] = frozenset()
        if not self.pre_quantized:
            return
        with torch.device("meta"):
            lay_out(model, self.quantization_config.layout)
        self._claimed = frozenset(stored_modules(model))

    def maybe_update_loaded_keys(self, loaded_keys: list[str], checkpoint_files: list[str]) -> list[str]:
        """Remembers what the files hold, so that a tensor that belongs nowhere is found."""
        self._stored = frozenset(loaded_keys)
        return loaded_keys

    def check_if_quantized_param(
        self, model: nn.Module, param_value: Tensor, param_name: str, state_dict: dict[str, Tensor], **kwargs: Any
    ) -> bool:
        """True for every tensor of a module of ours: fp32 scales and tables must not be cast to the model's dtype."""
        return param_name.rpartition(".")[0] in self._claimed

    def check_quantized_param_shape(self, param_name: str, current_param: Tensor, loaded_param: Tensor) -> None:
        """Called for a mismatch only: a table may have one row for all groups."""
        if param_name.rpartition(".")[2] in _TABLES and loaded_param.shape == (1,):
            return
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
        if tensor not in buffers:
            raise CheckpointError(f"{param_name} is not a tensor of this layer: it has {', '.join(buffers)}")
        if stored.dtype != buffers[tensor].dtype:
            raise CheckpointError(f"{param_name} is {stored.dtype}, wanted {buffers[tensor].dtype}")
        setattr(model.get_submodule(layer), tensor, stored.to(target_device))

    def _process_model_after_weight_loading(self, model: nn.Module, **kwargs: Any) -> None:
        if not self.pre_quantized:
            layout = quantize_dynamically(model, self.quantization_config.layout)
            self.quantization_config = FacsimileConfig(**asdict(layout))
            model.register_to_config(quantization_config=self.quantization_config)  # type: ignore[operator]
            return
        missing = [name for name, tensor in model.state_dict().items() if tensor.is_meta]
        if missing:
            raise CheckpointError(f"the checkpoint lacks {len(missing)} tensors, the first is {missing[0]}")
        extra = sorted(self._stored - model.state_dict().keys())
        if extra:
            raise CheckpointError(f"the checkpoint has {len(extra)} tensors too many, the first is {extra[0]}")
        finish(model, self.quantization_config.layout)
        for name, module in stored_modules(model).items():
            try:
                module.check()
            except QuantError as error:
                raise CheckpointError(f"{name}: {error}") from error
        _leave_file(model)
        fuse(model)

    def _dequantize(self, model: nn.Module) -> nn.Module:
        return dequantize(model)

    @property
    def is_serializable(self) -> bool:
        """Checkpoints are plain safetensors."""
        return True

    @property
    def is_trainable(self) -> bool:
        """Integer codes have no gradient."""
        return False

    @property
    def is_compileable(self) -> bool:
        """The layers choose kernels and table rows in Python."""
        return False


def _refuse_unknown(fields: Iterable[str]) -> None:
    """Raises RecipeMismatch, naming the fields that there are."""
    for field in sorted(fields):
        near = get_close_matches(field, Layout.__dataclass_fields__, 1)
        guess = f", perhaps {near[0]} is meant" if near else ""
        raise RecipeMismatch(
            f"FacsimileConfig has no field {field!r}{guess}: it has {', '.join(Layout.__dataclass_fields__)}"
        )


def _leave_file(model: nn.Module) -> None:
    """Copies all tensors but the weights of quantized layers. They lie in the mapped file, which stays in memory as a
    whole while one of them does; the weights leave it when kernels take them."""
    for tensor in model.parameters():
        tensor.data = tensor.data.clone()
    for name, buffer in model.named_buffers():
        owner, _, own = name.rpartition(".")
        if own != "weight":
            setattr(model.get_submodule(owner), own, buffer.clone())


install()
AUTO_QUANTIZER_MAPPING[Method.FACSIMILE.value] = FacsimileQuantizer
AUTO_QUANTIZATION_CONFIG_MAPPING[Method.FACSIMILE.value] = FacsimileConfig
