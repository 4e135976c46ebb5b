"""Pipelines of every family, of the real classes, tiny and untrained, and their pictures by diffusers' own call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMPipeline,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    PNDMScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    UNet2DModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

LETTERS = [chr(c) for c in range(ord("a"), ord("z") + 1)]
SIZE = 32
"""Pixels of every tiny picture."""

_BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def clip_tokenizer(length: int = 16) -> CLIPTokenizer:
    """A tokenizer whose words are letters."""
    words = [*LETTERS, *(f"{c}</w>" for c in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=length)


def clip_encoder(kind: Any, width: int) -> Any:
    """A text encoder for that tokenizer."""
    return kind(
        CLIPTextConfig(
            vocab_size=len(clip_tokenizer()), hidden_size=width, intermediate_size=37, num_attention_heads=4,
            num_hidden_layers=3, max_position_embeddings=16, projection_dim=width, bos_token_id=52, eos_token_id=53,
            pad_token_id=53,
        )
    )  # fmt: skip


def autoencoder(channels: int = 4, **config: Any) -> AutoencoderKL:
    """Pictures of 32 x 32 to latents of 16 x 16."""
    return AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=channels, down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, block_out_channels=(16, 32), norm_num_groups=8, sample_size=SIZE,
        **config,
    )  # fmt: skip


def _unet(**config: Any) -> UNet2DConditionModel:
    shape = {
        "sample_size": 16, "in_channels": 4, "out_channels": 4, "layers_per_block": 1, "block_out_channels": (32, 64),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "cross_attention_dim": 32,
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"), "attention_head_dim": 2, "norm_num_groups": 8,
    }  # fmt: skip
    return UNet2DConditionModel(**(shape | config))


def stable_diffusion_1() -> StableDiffusionPipeline:
    """As SD v1-4: PNDM, epsilon, projections by convolution."""
    return _latent(_unet(), PNDMScheduler(**_BETAS, skip_prk_steps=True, steps_offset=1))


def stable_diffusion_2() -> StableDiffusionPipeline:
    """As SD v2-1: v-prediction, linear projections, heads of one width."""
    unet = _unet(use_linear_projection=True, attention_head_dim=(2, 4))
    return _latent(unet, DDIMScheduler(**_BETAS, clip_sample=False, prediction_type="v_prediction", steps_offset=1))


def _latent(unet: UNet2DConditionModel, scheduler: Any) -> StableDiffusionPipeline:
    return StableDiffusionPipeline(
        vae=autoencoder(), text_encoder=clip_encoder(CLIPTextModel, 32), tokenizer=clip_tokenizer(), unet=unet,
        scheduler=scheduler, safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def stable_diffusion_xl() -> StableDiffusionXLPipeline:
    """As SDXL 1.0: two encoders, pooled text and sizes beside the text, deeper transformers."""
    unet = _unet(
        use_linear_projection=True, transformer_layers_per_block=(1, 2), cross_attention_dim=64,
        addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=6 * 8 + 32,
    )  # fmt: skip
    return StableDiffusionXLPipeline(
        vae=autoencoder(), text_encoder=clip_encoder(CLIPTextModel, 32), tokenizer=clip_tokenizer(),
        text_encoder_2=clip_encoder(CLIPTextModelWithProjection, 32), tokenizer_2=clip_tokenizer(), unet=unet,
        scheduler=EulerDiscreteScheduler(**_BETAS, steps_offset=1, timestep_spacing="leading"),
        add_watermarker=False,
    )  # fmt: skip


def stable_diffusion_3() -> StableDiffusion3Pipeline:
    """As SD3: joint transformer, rectified flow, two CLIP encoders and a T5 encoder."""
    transformer = SD3Transformer2DModel(
        sample_size=16, patch_size=2, in_channels=4, num_layers=3, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=64, caption_projection_dim=32, pooled_projection_dim=64, out_channels=4,
        pos_embed_max_size=16, qk_norm="rms_norm", dual_attention_layers=(0,),
    )  # fmt: skip
    torch.nn.init.normal_(transformer.proj_out.weight, std=0.05)
    words = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0), *((letter, -3.0) for letter in LETTERS)]
    t5 = T5Config(
        vocab_size=len(words), d_model=64, d_kv=16, d_ff=37, num_layers=2, num_heads=4, pad_token_id=0, eos_token_id=1,
        decoder_start_token_id=0,
    )  # fmt: skip
    return StableDiffusion3Pipeline(
        transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=autoencoder(shift_factor=0.05, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=clip_encoder(CLIPTextModelWithProjection, 32), tokenizer=clip_tokenizer(),
        text_encoder_2=clip_encoder(CLIPTextModelWithProjection, 32), tokenizer_2=clip_tokenizer(),
        text_encoder_3=T5EncoderModel(t5), tokenizer_3=T5Tokenizer(vocab=words, extra_ids=0, model_max_length=12),
    )  # fmt: skip


def ddim() -> DDIMPipeline:
    """As DDIM on CIFAR-10: pixels, attention with group norm, nothing to ask with."""
    return DDIMPipeline(unet=_pixel_unet(), scheduler=DDIMScheduler(beta_schedule="linear"))


def ddpm() -> DDPMPipeline:
    """The same, with noise at every step."""
    return DDPMPipeline(unet=_pixel_unet(), scheduler=DDPMScheduler(beta_schedule="linear"))


def _pixel_unet() -> UNet2DModel:
    return UNet2DModel(
        sample_size=SIZE, in_channels=3, out_channels=3, layers_per_block=1, block_out_channels=(32, 64),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8, attention_head_dim=8,
    )  # fmt: skip


BUILDERS: dict[str, Callable[[], Any]] = {
    "sd1": stable_diffusion_1,
    "sd2": stable_diffusion_2,
    "sdxl": stable_diffusion_xl,
    "sd3": stable_diffusion_3,
    "ddim": ddim,
}
"""The five models that every method is tried on."""

FAMILY = {
    "sd1": "stable_diffusion",
    "sd2": "stable_diffusion",
    "sdxl": "stable_diffusion_xl",
    "sd3": "stable_diffusion_3",
    "ddim": "ddim",
}


def build(name: str, seed: int = 0) -> Any:
    """A pipeline of that name, the same for the same seed."""
    return _quiet((BUILDERS | {"ddpm": ddpm})[name], seed)


def _quiet(builder: Callable[[], Any], seed: int) -> Any:
    torch.manual_seed(seed)
    pipeline = builder()
    pipeline.set_progress_bar_config(disable=True)
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval().requires_grad_(False)
    return pipeline


@torch.no_grad()
def diffusers_pictures(
    pipeline: DiffusionPipeline, prompts: Sequence[str] | None, seeds: Sequence[int], steps: int, scale: float
) -> torch.Tensor:
    """What diffusers' own call draws, float32 [N, 3, H, W] in [0, 1]; without prompts for models that take none."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    if prompts is None:
        drawn = pipeline(len(seeds), generators, num_inference_steps=steps, output_type="pt").images
        return drawn.float() if isinstance(drawn, torch.Tensor) else torch.from_numpy(drawn).permute(0, 3, 1, 2)
    extra = {"max_sequence_length": 12} if isinstance(pipeline, StableDiffusion3Pipeline) else {}
    drawn = pipeline(
        list(prompts), generator=generators, num_inference_steps=steps, guidance_scale=scale, height=SIZE, width=SIZE,
        output_type="pt", **extra,
    )  # fmt: skip
    return drawn.images.float()
