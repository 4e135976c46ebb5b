"""The denoisers that are measured: their configurations, weights and inputs, the same for every contender."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from safetensors import safe_open
from torch import Tensor

ROOT = Path(__file__).parents[1]
CACHE = ROOT / "runs" / "bench"
"""Weights and artefacts that take minutes to make; git ignores the folder."""

WEIGHT_SEED = 0
TIMESTEP = 500


@dataclass(frozen=True)
class Shape:
    """A UNet: where its weights are (None: drawn at random from `config`), latents [B, 4, side, side], text
    [B, tokens, width], and the width of the pooled text (0: the UNet takes no added conditions)."""

    name: str
    side: int
    tokens: int
    width: int
    config: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    pooled: int = 0

    @property
    def weights(self) -> Path:
        """The diffusers folder of the UNet."""
        return self.folder or CACHE / self.name / "unet"


SHAPES = {
    shape.name: shape
    for shape in (
        Shape(
            "sd-v1-4",
            side=64,
            tokens=77,
            width=768,
            config={
                "sample_size": 64,
                "block_out_channels": (320, 640, 1280, 1280),
                "layers_per_block": 2,
                "cross_attention_dim": 768,
                "attention_head_dim": 8,
            },
        ),
        Shape(
            "sdxl",
            side=64,
            tokens=77,
            width=2048,
            pooled=1280,
            config={
                "sample_size": 128,
                "block_out_channels": (320, 640, 1280),
                "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
                "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
                "layers_per_block": 2,
                "transformer_layers_per_block": (1, 2, 10),
                "attention_head_dim": (5, 10, 20),
                "cross_attention_dim": 2048,
                "use_linear_projection": True,
                "addition_embed_type": "text_time",
                "addition_time_embed_dim": 256,
                "projection_class_embeddings_input_dim": 2816,
            },
        ),
        Shape("shapes-sd", side=16, tokens=48, width=256, folder=ROOT / "models" / "shapes-sd" / "unet"),
        Shape(
            "tiny",
            side=8,
            tokens=5,
            width=32,
            config={
                "sample_size": 8,
                "block_out_channels": (32, 64),
                "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
                "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
                "layers_per_block": 1,
                "cross_attention_dim": 32,
                "attention_head_dim": 4,
            },
        ),
    )
}
"""`tiny` is there for the tests of the harness."""


def ensure_weights(shape: Shape) -> Path:
    """The folder of the weights; a random UNet is drawn once, in bfloat16, with diffusers' own initialization."""
    if not (shape.weights / "config.json").exists():
        if shape.folder is not None:
            raise FileNotFoundError(f"{shape.folder} is not there: it is part of the repository")
        torch.manual_seed(WEIGHT_SEED)
        with _default_dtype(torch.bfloat16):
            UNet2DConditionModel(**shape.config).save_pretrained(shape.weights)
    return shape.weights


def parameters(shape: Shape) -> int:
    """Number of weights of the UNet, from the headers of its files."""
    total = 0
    for path in shape.weights.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            total += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118  no dict
    return total


def load_unet(shape: Shape, dtype: torch.dtype, **options: Any) -> UNet2DConditionModel:
    """The UNet in `dtype`, without gradient; `options` go to `from_pretrained`."""
    unet = UNet2DConditionModel.from_pretrained(shape.weights, torch_dtype=dtype, use_safetensors=True, **options)
    return unet.eval().requires_grad_(False)


def inputs(shape: Shape, batch: int, seed: int, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """Arguments of one step: latents and text are drawn from N(0, 1), the timestep is the middle one."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*size: int) -> Tensor:
        return torch.randn(batch, *size, generator=generator).to(dtype)

    arguments: dict[str, Any] = {
        "sample": draw(4, shape.side, shape.side),
        "timestep": torch.tensor(TIMESTEP),
        "encoder_hidden_states": draw(shape.tokens, shape.width),
    }
    if shape.pooled:
        size = 8.0 * shape.side
        time_ids = torch.tensor([[size, size, 0.0, 0.0, size, size]], dtype=dtype).repeat(batch, 1)
        arguments["added_cond_kwargs"] = {"text_embeds": draw(shape.pooled), "time_ids": time_ids}
    return arguments


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
