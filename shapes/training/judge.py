"""The judge's training: renders, their reconstructions, and blurred and noisy copies, against exact ground truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d, cross_entropy

from quant.judge import Judge
from shapes.scene import Scene
from shapes.training.loop import Schedule, train
from shapes.vocabulary import ABSENT, HEAD_WORDS, targets

BATCH = 64


def _augment(pictures: Tensor, autoencoder: AutoencoderKL, generator: torch.Generator) -> Tensor:
    """A quarter reconstructed by the autoencoder, an eighth blurred, all with a little noise; [-1, 1]."""
    quarter, eighth = len(pictures) // 4, len(pictures) // 8
    with torch.no_grad():
        reconstructed = autoencoder.decode(autoencoder.encode(pictures[:quarter]).latent_dist.mean).sample
    blurred = avg_pool2d(pictures[quarter : quarter + eighth], 3, stride=1, padding=1, count_include_pad=False)
    mixed = torch.cat([reconstructed, blurred, pictures[quarter + eighth :]])
    strength = 0.06 * torch.rand((len(mixed), 1, 1, 1), generator=generator)
    return (mixed + strength * torch.randn(mixed.shape, generator=generator)).clamp(-1.0, 1.0)


def train_judge(
    scenes: list[Scene], pictures: NDArray[np.uint8], autoencoder: AutoencoderKL, iterations: int, folder: Path
) -> Judge:
    """Trains on uint8 renders [N, 128, 128, 3] of `scenes`; returns the averaged judge."""
    torch.manual_seed(0)
    judge = Judge(heads=HEAD_WORDS).to(memory_format=torch.channels_last)
    wanted = targets(scenes)

    def loss(generator: torch.Generator) -> Tensor:
        picks = torch.randint(0, len(scenes), (BATCH,), generator=generator)
        batch = torch.from_numpy(np.stack([pictures[i] for i in picks.tolist()])).permute(0, 3, 1, 2)
        batch = batch.float().contiguous(memory_format=torch.channels_last) / 127.5 - 1.0
        logits = judge(_augment(batch, autoencoder, generator))
        losses = [
            cross_entropy(logits[head], wanted[picks, i], ignore_index=ABSENT)
            for i, head in enumerate(HEAD_WORDS)
            if bool((wanted[picks, i] != ABSENT).any())
        ]
        return torch.stack(losses).sum() / len(HEAD_WORDS)

    schedule = Schedule(iterations=iterations, learning_rate=1e-3, warmup=100, ema_decay=0.99)
    trained = train(judge, loss, schedule, folder)
    return trained  # type: ignore[return-value]
