"""The autoencoder: pictures to latents of an eighth of the size, trained on crops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import l1_loss, mse_loss

from shapes.training.loop import Schedule, train

CROP = 64
BATCH = 16
WHOLE_BATCH = 6
KL_WEIGHT = 2e-4


def build_autoencoder() -> AutoencoderKL:
    """An untrained AutoencoderKL: 3 x 128 x 128 to 4 x 16 x 16, 3.4 M parameters."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(32, 64, 96, 128),
        layers_per_block=1,
        norm_num_groups=16,
        sample_size=128,
    )


def _crops(pictures: NDArray[np.uint8], generator: torch.Generator) -> Tensor:
    """Random crops, floats in [-1, 1], [BATCH, 3, CROP, CROP]; mirrored half of the time. Twice as many are drawn and
    the half with the most contrast is kept, so that few show bare floor."""
    span = pictures.shape[1] - CROP

    def draw(high: int) -> list[int]:
        return torch.randint(0, high, (2 * BATCH,), generator=generator).tolist()

    corners = zip(draw(len(pictures)), draw(span), draw(span), draw(2), strict=True)
    crops = [pictures[i, y : y + CROP, x : x + CROP, :][:, :: 1 - 2 * flip] for i, y, x, flip in corners]
    crops = sorted(crops, key=lambda crop: -float(crop[::4, ::4].std(axis=(0, 1)).max()))[:BATCH]
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def _gradients(pictures: Tensor) -> tuple[Tensor, Tensor]:
    return pictures[..., 1:] - pictures[..., :-1], pictures[..., 1:, :] - pictures[..., :-1, :]


def _distance(decoded: Tensor, pictures: Tensor) -> Tensor:
    edges = sum(l1_loss(a, b) for a, b in zip(_gradients(decoded), _gradients(pictures), strict=True))
    return l1_loss(decoded, pictures) + 3.0 * mse_loss(decoded, pictures) + 0.5 * edges


def train_autoencoder(pictures: NDArray[np.uint8], iterations: int, folder: Path) -> AutoencoderKL:
    """Trains on uint8 pictures [N, 128, 128, 3] with L1 and squared error on values, L1 on gradients and
    a small KL term; sets the
    scaling factor so that latents of the data have a standard deviation of one."""
    torch.manual_seed(0)
    autoencoder = build_autoencoder().to(memory_format=torch.channels_last)

    def loss(generator: torch.Generator) -> Tensor:
        crops = _crops(pictures, generator).contiguous(memory_format=torch.channels_last)
        posterior = autoencoder.encode(crops).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator)
        decoded = autoencoder.decode(posterior.mean + posterior.std * noise).sample
        return _distance(decoded, crops) + KL_WEIGHT * posterior.kl().mean() / posterior.mean[0].numel()

    schedule = Schedule(iterations=iterations, learning_rate=1.5e-3, ema_decay=0.995)
    trained = train(autoencoder, loss, schedule, folder)
    sample = torch.from_numpy(np.array(pictures[:256])).permute(0, 3, 1, 2).float() / 127.5 - 1.0
    with torch.no_grad():
        spread = torch.cat([trained.encode(part).latent_dist.mean for part in sample.split(32)]).std().item()
    trained.register_to_config(scaling_factor=1.0 / spread)
    return trained


def finish_decoder(
    autoencoder: AutoencoderKL, pictures: NDArray[np.uint8], iterations: int, folder: Path
) -> AutoencoderKL:
    """Trains the decoder on, on whole pictures uint8 [N, 128, 128, 3]: crops alone leave it with wrong tints on large
    plain areas. The encoder, and so every latent, stays as it is."""
    encoder_side = [autoencoder.encoder, autoencoder.quant_conv]
    for part in encoder_side:
        part.requires_grad_(False)
    autoencoder.to(memory_format=torch.channels_last)

    def loss(generator: torch.Generator) -> Tensor:
        picks = torch.randint(0, len(pictures), (WHOLE_BATCH,), generator=generator).tolist()
        whole = torch.from_numpy(np.stack([pictures[i] for i in picks])).permute(0, 3, 1, 2).float() / 127.5 - 1.0
        whole = whole.contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            posterior = autoencoder.encode(whole).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator)
        return _distance(autoencoder.decode(posterior.mean + posterior.std * noise).sample, whole)

    schedule = Schedule(iterations=iterations, learning_rate=5e-4, warmup=50, ema_decay=0.99, save_every=100)
    return train(autoencoder, loss, schedule, folder)
