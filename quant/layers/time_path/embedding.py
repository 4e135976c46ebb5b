"""What a UNet makes of a timestep: the layers of its time path, and its embedding outside of a forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from diffusers.models.attention_processor import SpatialNorm
from diffusers.models.embeddings import TimestepEmbedding
from diffusers.models.normalization import AdaGroupNorm
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from quant.errors import RecipeMismatch

TIME_LAYERS = ("time_embedding.*", "*.time_emb_proj", "add_embedding.*", "class_embedding.*")
"""Patterns of the layers of the time path, the temporal information block of TFMQ-DM."""


def is_time_layer(name: str) -> bool:
    """Whether a layer of this full name belongs to the time path."""
    return any(fnmatchcase(name, pattern) for pattern in TIME_LAYERS)


def blocks(denoiser: nn.Module) -> list[Any]:
    """The residual blocks that take the embedding."""
    return [
        module
        for module in denoiser.modules()
        if isinstance(module, ResnetBlock2D) and module.time_emb_proj is not None
    ]


def refuse_conditioning(denoiser: Any) -> None:
    """Raises RecipeMismatch where the time path depends on more than the timestep, or `refuse_strange` does."""
    refuse_strange(denoiser)
    config = denoiser.config
    needs = {
        "addition_embed_type": config.addition_embed_type is not None,
        "class_embedding": denoiser.class_embedding is not None,
        "time_cond_proj_dim": config.time_cond_proj_dim is not None,
    }
    for name, there in needs.items():
        if there:
            raise RecipeMismatch(f"{name}: the time path depends on more than the timestep; use time_path per_request")


def refuse_strange(denoiser: Any) -> None:
    """Raises RecipeMismatch for what can be neither precalculated nor looked up."""
    if not hasattr(denoiser, "get_aug_embed"):
        raise RecipeMismatch(f"{type(denoiser).__name__} has not the time path of a UNet2DConditionModel: keep it")
    kind = denoiser.config.addition_embed_type
    if kind not in (None, "text_time"):
        raise RecipeMismatch(f"addition_embed_type {kind!r} is computed anew by every call: keep the time path")
    for name, module in denoiser.named_modules():
        if isinstance(module, AdaGroupNorm | SpatialNorm):
            raise RecipeMismatch(f"{name} takes the embedding without a time_emb_proj: keep the time path")
    embeddings = [e for e in (denoiser.time_embedding, getattr(denoiser, "add_embedding", None)) if e is not None]
    untouched = all(type(embedding) is TimestepEmbedding for embedding in embeddings)
    layers = [block.time_emb_proj for block in blocks(denoiser)]
    layers += [layer for e in embeddings if untouched for layer in (e.linear_1, e.linear_2)]
    if not untouched or any(type(layer) is not nn.Linear for layer in layers):
        raise RecipeMismatch("the time path is quantized or replaced already: start from the float model")


def embed(denoiser: Any, path: Any, timesteps: Sequence[float], request: dict[str, Tensor]) -> Tensor:
    """The embedding [T, B, E] as the denoiser's forward makes it, `path` being its time embedding; B is 1 without
    conditioning."""
    weight, condition = path.linear_1.weight, request.get("timestep_cond")
    sample = weight.new_zeros(len(timesteps), 1)
    values = torch.tensor(timesteps, dtype=torch.float32, device=weight.device)
    sinusoid = denoiser.get_time_embed(sample=sample, timestep=values)
    if condition is None:
        out = path(sinusoid)[:, None]
    else:
        pairs = sinusoid.repeat_interleave(len(condition), 0), condition.to(weight.dtype).repeat(len(values), 1)
        out = path(*pairs).unflatten(0, (len(values), -1))
    classes = denoiser.get_class_embed(sample=sample, class_labels=request.get("class_labels"))
    if classes is not None and denoiser.config.class_embeddings_concat:
        wide = torch.broadcast_shapes(out.shape[:-1], (1, len(classes)))
        out = torch.cat([out.expand(*wide, -1), classes.expand(*wide, -1)], dim=-1)
    elif classes is not None:
        out = out + classes
    added = denoiser.get_aug_embed(emb=out, encoder_hidden_states=None, added_cond_kwargs=request)
    out = out if added is None else out + added
    return out if denoiser.time_embed_act is None else denoiser.time_embed_act(out)


def activated(block: Any, embedding: Tensor) -> Tensor:
    """The embedding as the block's projection takes it."""
    return embedding if block.skip_time_act else block.nonlinearity(embedding)


def looked_up(rows: Tensor, current: int | Tensor, like: Tensor) -> Tensor:
    """The current rows of [T, B, C], B pictures or one for all: [B, C], contiguous, in the dtype of `like` [B, any]."""
    if isinstance(current, Tensor):
        pictures = torch.arange(len(current)) if rows.shape[1] > 1 else torch.zeros_like(current)
        out = rows[current.to(rows.device), pictures.to(rows.device)]
    else:
        out = rows[current].expand(len(like), -1)
    return out.to(like.dtype).contiguous()
