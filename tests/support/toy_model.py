"""A latent diffusion model of toy shapes that is trained, and so small that a test can calibrate it.

The pipeline has the real classes, as tiny_model.py has them, and denoises latents 4 x 8 x 8; only its UNet is
trained, on latents drawn directly: blobs and bars of four colours. `python -m tests.support.toy_model` trains it anew
in less than four minutes on one thread, and writes tests/data/toy_unet.safetensors."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from contract.places import ROOT
from quant.sampling.request import Sampling
from tests.support.tiny_model import build_tiny_pipeline

WEIGHTS = ROOT / "tests" / "data" / "toy_unet.safetensors"
COLOURS = {
    "red": (1.5, -1.0, 0.5, 0.0),
    "blue": (-1.5, 1.0, 0.0, 0.5),
    "green": (0.5, 0.5, -1.5, 1.0),
    "grey": (0.0, -0.5, 1.0, -1.5),
}
SHAPES = ("blob", "bar")
PROMPTS = tuple(f"{colour} {shape}" for shape in SHAPES for colour in COLOURS)
SIZE = 16
"""Pixels, of which the autoencoder makes latents of 8 x 8."""

ITERATIONS = 1200
BATCH = 64


def build_toy_pipeline(*, trained: bool = True) -> StableDiffusionPipeline:
    """The pipeline, float32, with the committed weights or with those to start from."""
    pipeline = build_tiny_pipeline()
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(32, 40),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32, attention_head_dim=2, norm_num_groups=8,
    )  # fmt: skip
    if trained:
        unet.load_state_dict({name: tensor.float() for name, tensor in load_file(WEIGHTS).items()})
    pipeline.register_modules(unet=unet.eval().requires_grad_(False))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def save_toy_model(folder: Path) -> Path:
    """Writes `toy/` (the pipeline) and `models.toml` (model id `toy`) to `folder`; returns the models file."""
    build_toy_pipeline().save_pretrained(folder / "toy")
    models = folder / "models.toml"
    models.write_text(
        f'[toy]\nfamily = "stable_diffusion"\nsource = "toy"\nwidth = {SIZE}\nheight = {SIZE}\nmax_width = {SIZE}\n'
        f"max_height = {SIZE}\nnum_inference_steps = 8\nguidance_scale = 2.0\n"
    )
    return models


def toy_sampling(steps: int, guidance_scale: float = 2.0, seed: int = 0) -> Sampling:
    """The settings that the model is used with."""
    return Sampling(
        prompt="", seed=seed, num_inference_steps=steps, guidance_scale=guidance_scale, width=SIZE, height=SIZE
    )


def draw_latents(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Training latents float32 [count, 4, 8, 8] and the numbers of their prompts [count]."""
    kinds = torch.randint(len(PROMPTS), (count,), generator=generator)
    centre = 2.0 + 3.0 * torch.rand(count, 2, 1, 1, generator=generator)
    rows, columns = (axis.float() for axis in torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij"))
    down, right = (rows - centre[:, 0]).abs(), (columns - centre[:, 1]).abs()
    blobs = torch.exp(-(down**2 + right**2) / 3.0)
    bars = ((down < 1.0) & (right < 3.5)).float()
    masks = torch.where((kinds < len(COLOURS))[:, None, None], blobs, bars)
    colours = torch.tensor(list(COLOURS.values()))[kinds % len(COLOURS)]
    shapes = 2.0 * masks[:, None] * colours[:, :, None, None] - 0.3
    return shapes + 0.05 * torch.randn(shapes.shape, generator=generator), kinds


def train() -> UNet2DConditionModel:
    """The UNet, trained to predict noise, with a tenth of the prompts left out for guidance."""
    pipeline = build_toy_pipeline(trained=False)
    unet, generator = pipeline.unet.train().requires_grad_(True), torch.Generator().manual_seed(0)
    with torch.no_grad():
        prompts = pipeline.encode_prompt([*PROMPTS, ""], "cpu", 1, False)[0]
    optimizer = torch.optim.AdamW(unet.parameters(), lr=2e-3)
    for iteration in range(ITERATIONS):
        warm = min(1.0, (iteration + 1) / 50)
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * warm * 0.5 * (1.0 + math.cos(math.pi * iteration / ITERATIONS))
        latents, kinds = draw_latents(BATCH, generator)
        kinds[torch.rand(BATCH, generator=generator) < 0.1] = len(PROMPTS)
        noise = torch.randn(latents.shape, generator=generator)
        timesteps = torch.randint(0, 1000, (BATCH,), generator=generator)
        noisy = pipeline.scheduler.add_noise(latents, noise, timesteps)
        loss = (unet(noisy, timesteps, prompts[kinds]).sample - noise).pow(2).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
    return unet


def main() -> None:
    """Trains and writes the weights."""
    torch.set_num_threads(1)
    WEIGHTS.parent.mkdir(exist_ok=True)
    save_file({name: tensor.half().contiguous() for name, tensor in train().state_dict().items()}, WEIGHTS)


if __name__ == "__main__":
    main()
