"""Text encoder and denoiser, trained one after the other and written as one Stable Diffusion pipeline folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, StableDiffusionPipeline, UNet2DConditionModel
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from quant.checkpoints.checkpoint import save_pipeline
from shapes.scene import Scene
from shapes.training.denoiser import build_noise_schedule, encode_pictures, train_denoiser
from shapes.training.loop import Schedule
from shapes.training.text_encoder import build_tokenizer, train_text_encoder


def _text(scenes: list[Scene], iterations: int, runs: Path) -> tuple[CLIPTokenizer, CLIPTextModel]:
    """The tokenizer and the trained text encoder; made on the first call, loaded on later ones."""
    folder = runs / "text"
    if not (folder / "text_encoder").exists():
        tokenizer = build_tokenizer(scenes[:8000], folder / "tokenizer")
        text_encoder, _ = train_text_encoder(scenes, tokenizer, iterations, runs / "text_encoder")
        text_encoder.save_pretrained(folder / "text_encoder")
    return CLIPTokenizer.from_pretrained(folder / "tokenizer"), CLIPTextModel.from_pretrained(folder / "text_encoder")


def _latents(autoencoder: AutoencoderKL, renders: NDArray[np.uint8], runs: Path) -> tuple[Tensor, Tensor]:
    """Mean and spread of the latents of `renders`; made on the first call, loaded on later ones."""
    path = runs / f"latents-{len(renders)}.safetensors"
    if not path.exists():
        means, spreads = encode_pictures(autoencoder, torch.from_numpy(renders))
        save_file({"means": means, "spreads": spreads}, path)
    stored = load_file(path)
    return stored["means"], stored["spreads"]


def assemble(
    autoencoder: AutoencoderKL, text: tuple[CLIPTokenizer, CLIPTextModel], denoiser: UNet2DConditionModel
) -> StableDiffusionPipeline:
    """The pipeline in float16, with a second-order DPM-Solver as its sampler."""
    tokenizer, text_encoder = text
    return StableDiffusionPipeline(
        vae=autoencoder.half(),
        text_encoder=text_encoder.half(),
        tokenizer=tokenizer,
        unet=denoiser.half(),
        scheduler=DPMSolverMultistepScheduler.from_config(build_noise_schedule().config),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def train_pipeline(
    scenes: list[Scene], renders: NDArray[np.uint8], iterations: tuple[int, int], runs: Path, output: Path
) -> None:
    """Trains the text encoder and the denoiser on `scenes` (their pictures uint8 [N, 128, 128, 3]) for so many
    iterations each, with the autoencoder that is in `output`, and writes the pipeline to `output`."""
    autoencoder = AutoencoderKL.from_pretrained(output / "vae", torch_dtype=torch.float32)
    text = _text(scenes, iterations[0], runs)
    latents = _latents(autoencoder, renders, runs)
    schedule = Schedule(iterations=iterations[1], learning_rate=8e-4, warmup=300, ema_decay=0.999)
    denoiser = train_denoiser(scenes, latents, text, schedule, runs / "denoiser")
    autoencoder = AutoencoderKL.from_pretrained(output / "vae", torch_dtype=torch.float32)  # its decoder may be newer
    save_pipeline(assemble(autoencoder, text, denoiser), output)
