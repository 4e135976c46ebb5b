"""Pipelines from disk: a model's reference, and a checked quantized variant."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import diffusers
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from torch import nn

from contract.catalogue import ModelDescription
from quant.checkpoints.card_file import CARD
from quant.checkpoints.checkpoint import verify
from quant.checkpoints.layout import quantized_layers
from quant.discovery import families, family_named, family_of
from quant.engine.dtypes import resolved_dtype, torch_dtype
from quant.errors import CheckpointError, ModelError, QuantError, first_line
from quant.sampling.translation import no_memory, of_loading


class Source(Protocol):
    """Where a model comes from; `contract.catalogue.ModelDescription` is one."""

    @property
    def family(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def dtype(self) -> str: ...


def load_reference(description: Source) -> DiffusionPipeline:
    """The floating-point pipeline of a model, without gradient, in its own dtype.

    Raises ModelError when the weights are not there, unreadable, or of another family."""
    family = family_named(description.family)
    try:
        dtype = torch_dtype(resolved_dtype(description.dtype))
    except ValueError as error:
        raise ModelError(f"{error}, in the description of {description.source}") from error
    try:
        pipeline = _from_pretrained(description.source, dtype, family.left_out)
    except Exception as error:  # diffusers raises many kinds for a bad folder
        found = of_loading(error, description.source, description.family)
        if found is error:
            raise
        raise found from error
    if type(pipeline) not in family.pipelines:
        kinds = " or ".join(kind.__name__ for kind in family.pipelines)
        raise ModelError(
            f"model {description.source} is a {type(pipeline).__name__}; the family {description.family} has {kinds}"
        )
    family.check(pipeline)
    return _quiet(pipeline)


def describe_folder(source: str | Path) -> ModelDescription:
    """The description of a model that is in no models file: the family of its pipeline's class, the size that its
    denoiser was made for. Raises ModelError for a source that is no model, or one of no family."""
    try:
        index = DiffusionPipeline.load_config(source, local_files_only=True)
    except Exception as error:  # the hub's client raises several kinds
        raise ModelError(f"{source} is neither a diffusers folder nor in the local hub cache") from error
    kind = getattr(diffusers, str(index.get("_class_name")), None)
    name = next((name for name, family in families().items() if kind in family.pipelines), None)
    if name is None:
        raise ModelError(f"{source} is a {index.get('_class_name')}: the families are {', '.join(families())}")
    shrink = 1
    if "vae" in index:
        shrink = 2 ** (len(_config(index, source, "vae")["block_out_channels"]) - 1)
    sides = _sides(_config(index, source, families()[name].denoiser)["sample_size"], shrink)
    return ModelDescription(
        family=name, source=str(source), width=sides[0], height=sides[1], max_width=sides[0], max_height=sides[1]
    )


def native_size(pipeline: DiffusionPipeline) -> tuple[int, int]:
    """Width and height in pixels that the denoiser was made for."""
    config: Any = denoiser_of(pipeline).config
    return _sides(config.sample_size, getattr(pipeline, "vae_scale_factor", 1))


def _config(index: dict[str, Any], source: str | Path, component: str) -> dict[str, Any]:
    kind = getattr(diffusers, index[component][1])
    return cast(dict[str, Any], kind.load_config(source, subfolder=component, local_files_only=True))


def _sides(sample_size: int | Sequence[int], shrink: int) -> tuple[int, int]:
    height, width = (sample_size, sample_size) if isinstance(sample_size, int) else sample_size
    return width * shrink, height * shrink


def _from_pretrained(source: str | Path, dtype: torch.dtype, left_out: Sequence[str] = ()) -> DiffusionPipeline:
    """The pipeline of the class that its folder names. Components that are left out, or that the folder says there are
    none of, are passed as None: diffusers does not take the folder's word for some of them."""
    index = DiffusionPipeline.load_config(source, local_files_only=True)
    absent = {name: None for name, parts in index.items() if name in left_out or parts == [None, None]}
    if "safety_checker" in absent:
        absent["requires_safety_checker"] = False  # type: ignore[assignment]
    return DiffusionPipeline.from_pretrained(source, dtype=dtype, use_safetensors=True, local_files_only=True, **absent)


def denoiser_skeleton(description: Source) -> nn.Module:
    """The denoiser of a model on the meta device: its layers by name, without any weight. Raises ModelError."""
    family = family_named(description.family)
    try:
        index = DiffusionPipeline.load_config(description.source, local_files_only=True)
        kind = getattr(diffusers, index[family.denoiser][1])
        config = _config(index, description.source, family.denoiser)
        with torch.device("meta"):
            return cast(nn.Module, kind.from_config(config))
    except Exception as error:  # diffusers raises many kinds for a bad folder
        found = of_loading(error, description.source, description.family)
        if found is error:
            raise
        raise found from error


def load_variant(folder: Path, dtype: str = "float32") -> DiffusionPipeline:
    """The quantized pipeline in `folder`, its files checked against the digest of its card; what is not quantized
    computes in `dtype`.

    Raises CheckpointError, naming the file or the tensor."""
    verify(folder)
    return load_unsigned(folder, dtype)


def load_unsigned(folder: Path, dtype: str = "float32") -> DiffusionPipeline:
    """As `load_variant`, for a checkpoint that has no card yet: only the tensors themselves are checked."""
    try:
        pipeline = _from_pretrained(folder, torch_dtype(resolved_dtype(dtype)))
    except Exception as error:
        if isinstance(error, QuantError) or no_memory(error):
            raise
        raise CheckpointError(f"checkpoint {folder} cannot be loaded: {first_line(error)}") from error
    return _quiet(pipeline)


def load_folder(folder: str | Path, dtype: str = "float32") -> DiffusionPipeline:
    """The pipeline in a diffusers folder, in `dtype`, without gradient: a quantized one, checked against its card where
    it has one, or one in floating point.

    Raises CheckpointError for a quantized one that is damaged, ModelError for any other that cannot be loaded."""
    place = Path(folder)
    if (place / CARD).is_file():
        return load_variant(place, dtype)
    description = describe_folder(folder)
    index = DiffusionPipeline.load_config(folder, local_files_only=True)
    if "quantization_config" in _config(index, folder, family_named(description.family).denoiser):
        return load_unsigned(place, dtype)
    return load_reference(description.model_copy(update={"dtype": dtype}))


def denoiser_of(pipeline: DiffusionPipeline) -> nn.Module:
    """The UNet or transformer of a pipeline."""
    return cast(nn.Module, pipeline.components[family_of(pipeline).denoiser])


def resident_bytes(pipeline: DiffusionPipeline) -> int:
    """Bytes of all parameters and buffers of the pipeline's models, and of the weights that kernels keep instead."""
    modules = [part for part in pipeline.components.values() if isinstance(part, nn.Module)]
    plain = sum(t.numel() * t.element_size() for m in modules for t in (*m.parameters(), *m.buffers()))
    return plain + sum(layer.kernel_bytes for m in modules for layer in quantized_layers(m).values())


def _quiet(pipeline: DiffusionPipeline) -> DiffusionPipeline:
    pipeline.set_progress_bar_config(disable=True)
    for part in pipeline.components.values():
        if isinstance(part, nn.Module):
            part.eval().requires_grad_(False)
    return pipeline


diffusers_logging.disable_progress_bar()
