"""A Stable Diffusion pipeline of the real classes, small and untrained: what tests use in place of real weights."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from tests.support.tiny_families import clip_tokenizer


def build_tiny_pipeline(seed: int = 0) -> StableDiffusionPipeline:
    """64 x 64 pixels, latents 4 x 32 x 32, a UNet with every kind of layer that the real one has."""
    torch.manual_seed(seed)
    tokenizer = clip_tokenizer()
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=32, intermediate_size=37, num_attention_heads=4, num_hidden_layers=2,
            max_position_embeddings=16, bos_token_id=52, eos_token_id=53, pad_token_id=53,
        )
    )  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=32, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(32, 64),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32, attention_head_dim=2, norm_num_groups=8,
    )  # fmt: skip
    vae = AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=4, down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, block_out_channels=(16, 32), norm_num_groups=8, sample_size=64,
    )  # fmt: skip
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False
    )
    return StableDiffusionPipeline(
        vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler, safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def save_tiny_model(folder: Path) -> Path:
    """Writes `tiny/` (the pipeline) and `models.toml` (model id `tiny`) to `folder`; returns the models file."""
    build_tiny_pipeline().save_pretrained(folder / "tiny")
    models = folder / "models.toml"
    models.write_text(
        '[tiny]\nfamily = "stable_diffusion"\nsource = "tiny"\nwidth = 64\nheight = 64\nmax_width = 128\n'
        "max_height = 128\nnum_inference_steps = 2\nguidance_scale = 3.0\n"
    )
    return models
