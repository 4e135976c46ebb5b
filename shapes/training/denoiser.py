"""The denoiser: a UNet that predicts noise in latents from captions, with min-SNR weights (arXiv 2303.09556)."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from rich.progress import track
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from shapes.scene import Scene
from shapes.training.loop import Schedule, train
from shapes.training.text_encoder import WIDTH, draw_captions, tokenize

BATCH = 64
CAPTION_DROPOUT = 0.1
SNR_CAP = 5.0


def build_denoiser() -> UNet2DConditionModel:
    """An untrained UNet for latents of 4 x 16 x 16: 13.5 M parameters, cross-attention at 8 x 8 and 4 x 4."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(96, 160, 192),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def build_noise_schedule() -> DDPMScheduler:
    """The training noise schedule: 1000 steps, the betas of Stable Diffusion, epsilon prediction."""
    return DDPMScheduler(
        num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False
    )


@torch.no_grad()
def encode_pictures(autoencoder: AutoencoderKL, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Posterior mean and standard deviation, scaled latents [N, 4, 16, 16] each, of uint8 pictures [N, 128, 128, 3]."""
    means, spreads = [], []
    for part in track(pictures.split(32), description="encoding"):
        scaled = part.permute(0, 3, 1, 2).float().contiguous(memory_format=torch.channels_last) / 127.5 - 1.0
        posterior = autoencoder.encode(scaled).latent_dist
        means.append(posterior.mean * autoencoder.config.scaling_factor)
        spreads.append(posterior.std * autoencoder.config.scaling_factor)
    return torch.cat(means).contiguous(), torch.cat(spreads).contiguous()


def train_denoiser(
    scenes: list[Scene],
    latents: tuple[Tensor, Tensor],
    text: tuple[CLIPTokenizer, CLIPTextModel],
    schedule: Schedule,
    folder: Path,
) -> UNet2DConditionModel:
    """Trains on latents of `scenes` (mean and spread, [N, 4, 16, 16]) with captions drawn anew every time; the text
    encoder stays as it is. Returns the averaged model."""
    torch.manual_seed(0)
    denoiser = build_denoiser().to(memory_format=torch.channels_last)
    denoiser.set_attn_processor(AttnProcessor())
    tokenizer, text_encoder = text
    text_encoder.requires_grad_(False).eval()
    noise_schedule = build_noise_schedule()
    signal = noise_schedule.alphas_cumprod
    weights = torch.clamp(SNR_CAP * (1.0 - signal) / signal, max=1.0)  # min(SNR, cap) / SNR
    means, spreads = latents

    def loss(generator: torch.Generator) -> Tensor:
        picks = torch.randint(0, len(scenes), (BATCH,), generator=generator)
        rng = random.Random(int(picks[0]) * 65_537 + int(picks[1]))
        captions = draw_captions([scenes[i] for i in picks.tolist()], rng)
        captions = ["" if rng.random() < CAPTION_DROPOUT else text for text in captions]
        timesteps = torch.randint(0, len(signal), (BATCH,), generator=generator)
        clean = means[picks] + spreads[picks] * torch.randn(means[picks].shape, generator=generator)
        noise = torch.randn(clean.shape, generator=generator)
        noisy = noise_schedule.add_noise(clean, noise, timesteps).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            context = text_encoder(tokenize(tokenizer, captions)).last_hidden_state
        with torch.autocast("cpu", torch.bfloat16):
            noise_pred = denoiser(noisy, timesteps, context).sample
        errors = (noise_pred.float() - noise).square().mean(dim=(1, 2, 3))
        return (errors * weights[timesteps]).mean()

    trained = train(denoiser, loss, schedule, folder)
    trained.set_default_attn_processor()
    return trained
