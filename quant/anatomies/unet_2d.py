"""The UNet of DDPM, DDIM and unconditional latent diffusion: residual blocks with skip connections, and attention over
the picture alone."""

from __future__ import annotations

from typing import Any

from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.unets.unet_2d import UNet2DModel
from torch import Tensor, nn

from quant.anatomies._unet import Unet, read_by_blocks
from quant.layers.time_path.path import Request, TimePath


class Unet2d(Unet):
    """A class may enter beside the timestep."""

    denoisers = (UNet2DModel,)
    blocks = (ResnetBlock2D, Attention)

    def attentions(self, denoiser: nn.Module) -> dict[str, Attention]:
        """None: there are no integer products behind a group norm yet."""
        return {}

    def time_path(self, denoiser: nn.Module) -> TimePath:
        """As of every anatomy."""
        classes = isinstance(getattr(denoiser, "class_embedding", None), nn.Module)
        parts = ("time_embedding", "class_embedding") if classes else ("time_embedding",)
        return TimePath(parts, self.projections(denoiser), _inputs, ("class_labels",) if classes else ())


def _inputs(denoiser: Any, timesteps: Tensor, request: Request) -> dict[str, Tensor]:
    """As the denoiser's forward makes its embedding."""
    dtype = denoiser.time_embedding.linear_1.weight.dtype
    out = denoiser.time_embedding(denoiser.time_proj(timesteps).to(dtype))
    if "class_labels" in request:
        labels = request["class_labels"]
        sinusoid = denoiser.time_proj(labels) if denoiser.config.class_embed_type == "timestep" else labels
        out = out + denoiser.class_embedding(sinusoid).to(dtype)
    return read_by_blocks(denoiser, out)


ANATOMY = Unet2d()
