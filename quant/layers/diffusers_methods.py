"""What diffusers' calls mean on a quantized denoiser, where its own methods would fail or mean something else.

diffusers has no hooks for them and compares classes exactly, so its classes' methods are replaced when this package is
imported. Objects without our mark get diffusers' own, unchanged."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import Any

import torch
from diffusers.loaders.peft import PeftAdapterMixin
from diffusers.loaders.unet import UNet2DConditionLoadersMixin
from diffusers.models.attention import AttentionMixin
from diffusers.models.attention_processor import Attention, FusedAttnProcessor2_0
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn

from quant.errors import RecipeMismatch
from quant.layers.layer import QuantizedLayer
from quant.layers.output_correction import correction_of
from quant.layers.time_path.per_request import Projection

Own = Callable[..., Any]
"""diffusers' method, called with the object first."""

_MARK = "facsimile_quantized"


def mark(module: nn.Module) -> None:
    """Has the calls of a quantized denoiser or attention mean what this file says."""
    module.__dict__[_MARK] = True


def unmark(module: nn.Module) -> None:
    """Has them mean what diffusers says again."""
    module.__dict__.pop(_MARK, None)


def num_parameters(own: Own, denoiser: Any, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
    """As of the floating-point model: a code counts as the weight that it stands for, biases count too."""
    plain = int(own(denoiser, only_trainable, exclude_embeddings))
    return plain if only_trainable else plain + sum(layer.num_weights for layer in _layers(denoiser))


def get_memory_footprint(own: Own, denoiser: Any, return_buffers: bool = True) -> int:
    """Bytes of all tensors as a checkpoint holds them, codes and biases with the parameters. The first call, which
    moves codes into kernels, does not change it; what kernels hold is told by
    `quant.checkpoints.pipelines.resident_bytes`."""
    plain, layers = int(own(denoiser, return_buffers=False)), _layers(denoiser)
    codes = sum(layer.stored_bytes for layer in layers)
    biases = sum(layer.bias.nbytes for layer in layers if layer.bias is not None)
    if not return_buffers:
        return plain + codes + biases
    weights = {id(layer._buffers["weight"]) for layer in layers if "weight" in layer._buffers}
    return plain + codes + sum(buffer.nbytes for buffer in denoiser.buffers() if id(buffer) not in weights)


def to(own: Own, denoiser: Any, *args: Any, **kwargs: Any) -> Any:
    """diffusers refuses a dtype; the one that the denoiser has is no change and therefore accepted, as `from_pipe`
    passes it."""
    dtype = denoiser.dtype
    args = tuple(arg for arg in args if arg is not None and not (isinstance(arg, torch.dtype) and arg == dtype))
    kwargs = {name: value for name, value in kwargs.items() if name != "dtype" or value not in (dtype, None)}
    return own(denoiser, *args, **kwargs) if args or kwargs else denoiser


def keep_projections(own: Own, module: Any, fuse: bool = True) -> None:
    """Merges nothing: query, key and value share one quantized input as they are."""


def set_processor(own: Own, attention: Attention, processor: Any) -> None:
    """The processor that diffusers sets after merging projections changes nothing, any other acts."""
    if not isinstance(processor, FusedAttnProcessor2_0):
        own(attention, processor)


def refuse_adapters(own: Own, denoiser: Any, *args: Any, **kwargs: Any) -> None:
    """Raises RecipeMismatch: peft does not know quantized layers."""
    raise RecipeMismatch(
        "adapters cannot be loaded into a quantized denoiser: load them into the reference, call fuse_lora() and save "
        "it, and quantize that"
    )


def refuse_compiling(own: Own, denoiser: Any, *args: Any, **kwargs: Any) -> None:
    """Raises RecipeMismatch: there is nothing in the blocks that a compiler could take."""
    raise RecipeMismatch(
        "the blocks of a quantized denoiser run kernels of their own, which torch.compile cannot improve: leave "
        "compile_repeated_blocks() out"
    )


def enable_group_offload(own: Own, denoiser: Any, *args: Any, **kwargs: Any) -> Any:
    """Files take dense tensors only: where groups go to disk, channels-last weights become plain ones before. Raises
    RecipeMismatch for a time path that is looked up per request and for an output correction, which run outside of all
    groups."""
    if any(isinstance(module, Projection) for module in denoiser.modules()):
        raise RecipeMismatch("time_path per_request cannot be offloaded in groups: offload the whole denoiser")
    if correction_of(denoiser) is not None:
        raise RecipeMismatch("an output_correction cannot be offloaded in groups: offload the whole denoiser")
    if kwargs.get("offload_to_disk_path") is not None or len(args) > _DISK_PATH:
        for tensor in denoiser.parameters():
            tensor.data = tensor.data.contiguous()
    return own(denoiser, *args, **kwargs)


_DISK_PATH = list(signature(ModelMixin.enable_group_offload).parameters).index("offload_to_disk_path") - 1

METHODS: tuple[tuple[type, str, Callable[..., Any]], ...] = (
    (ModelMixin, "num_parameters", num_parameters),
    (ModelMixin, "get_memory_footprint", get_memory_footprint),
    (ModelMixin, "to", to),
    (ModelMixin, "compile_repeated_blocks", refuse_compiling),
    (ModelMixin, "enable_group_offload", enable_group_offload),
    (PeftAdapterMixin, "load_lora_adapter", refuse_adapters),
    (PeftAdapterMixin, "add_adapter", refuse_adapters),
    (UNet2DConditionLoadersMixin, "load_attn_procs", refuse_adapters),
    (UNet2DConditionModel, "fuse_qkv_projections", keep_projections),
    (UNet2DConditionModel, "unfuse_qkv_projections", keep_projections),
    (AttentionMixin, "fuse_qkv_projections", keep_projections),
    (AttentionMixin, "unfuse_qkv_projections", keep_projections),
    (Attention, "fuse_projections", keep_projections),
    (Attention, "set_processor", set_processor),
)


def install() -> None:
    """Puts METHODS in place; once or several times."""
    for kind, name, function in METHODS:
        own = getattr(kind, name)
        if not hasattr(own, _MARK):
            setattr(kind, name, _method(own, function))


def _method(own: Own, function: Callable[..., Any]) -> Own:
    @wraps(own)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if _MARK in self.__dict__:
            return function(own, self, *args, **kwargs)
        return own(self, *args, **kwargs)

    setattr(method, _MARK, True)
    return method


def _layers(denoiser: nn.Module) -> list[QuantizedLayer[Any]]:
    return [module for module in denoiser.modules() if isinstance(module, QuantizedLayer)]
