"""The UNet of Stable Diffusion 1, 2 and XL: residual blocks with skip connections, and transformers that read
text."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention_processor import SpatialNorm
from diffusers.models.normalization import AdaGroupNorm
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from quant.anatomies._unet import Unet, read_by_blocks
from quant.errors import RecipeMismatch
from quant.layers.time_path.path import Request, TimePath


class Unet2dCondition(Unet):
    """Pooled texts and sizes, classes or a guidance scale may enter beside the timestep."""

    denoisers = (UNet2DConditionModel,)

    def time_path(self, denoiser: nn.Module) -> TimePath:
        """As of every anatomy."""
        config: Any = denoiser.config
        if config.addition_embed_type not in (None, "text_time"):
            raise RecipeMismatch(
                f"addition_embed_type {config.addition_embed_type!r} is computed anew by every call: keep the time path"
            )
        for name, module in denoiser.named_modules():
            if isinstance(module, AdaGroupNorm | SpatialNorm):
                raise RecipeMismatch(f"{name} takes the embedding without a time_emb_proj: keep the time path")
        parts = ("time_embedding", "add_embedding", "class_embedding")
        beside = {
            ("timestep_cond",): config.time_cond_proj_dim is not None,
            ("class_labels",): getattr(denoiser, "class_embedding", None) is not None,
            ("text_embeds", "time_ids"): config.addition_embed_type is not None,
        }
        return TimePath(
            embedders=tuple(name for name in parts if _has_weights(getattr(denoiser, name, None))),
            projections=self.projections(denoiser),
            inputs=_inputs,
            request=tuple(name for names, there in beside.items() if there for name in names),
        )


def _has_weights(module: nn.Module | None) -> bool:
    return module is not None and any(True for _ in module.modules()) and not isinstance(module, nn.Identity)


def _inputs(denoiser: Any, timesteps: Tensor, request: Request) -> dict[str, Tensor]:
    """As the denoiser's forward makes its embedding."""
    weight = denoiser.time_embedding.linear_1.weight
    sample = weight.new_zeros(len(timesteps), 1)
    out = denoiser.time_embedding(
        denoiser.get_time_embed(sample=sample, timestep=timesteps), _like(request.get("timestep_cond"), weight)
    )
    classes = denoiser.get_class_embed(sample=sample, class_labels=request.get("class_labels"))
    if classes is not None:
        out = torch.cat([out, classes], dim=-1) if denoiser.config.class_embeddings_concat else out + classes
    added = denoiser.get_aug_embed(emb=out, encoder_hidden_states=None, added_cond_kwargs=request)
    out = out if added is None else out + added
    return read_by_blocks(denoiser, out if denoiser.time_embed_act is None else denoiser.time_embed_act(out))


def _like(condition: Tensor | None, weight: Tensor) -> Tensor | None:
    return None if condition is None else condition.to(weight.dtype)


ANATOMY = Unet2dCondition()
