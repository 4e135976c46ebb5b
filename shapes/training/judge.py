"""The judge's training: renders, reconstructions, and blurred and noisy copies, against exact ground truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor
from torch.nn.functional import avg_pool2d, cross_entropy

from quant.fidelity.networks.judge import Judge
from shapes.scene import Scene
from shapes.training.loop import Schedule, train
from shapes.vocabulary import ABSENT, HEAD_WORDS, targets

BATCH = 64
RECONSTRUCTED = 1024


def _scaled(pictures: NDArray[np.uint8]) -> Tensor:
    """[N, 128, 128, 3] in 0..255 to [N, 3, 128, 128] in [-1, 1]."""
    tensor = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1.0
    return tensor.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def _reconstructions(autoencoder: AutoencoderKL, pictures: NDArray[np.uint8]) -> Tensor:
    """What the autoencoder makes of pictures, [N, 3, 128, 128] in [-1, 1]."""
    parts = [_scaled(np.array(pictures[i : i + 16])) for i in range(0, len(pictures), 16)]
    decoded = [autoencoder.decode(autoencoder.encode(part).latent_dist.mean).sample for part in track(parts)]
    return torch.cat(decoded).clamp(-1.0, 1.0)


def _blurred_and_noisy(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """An eighth blurred, all with a little noise."""
    eighth = len(pictures) // 8
    blurred = avg_pool2d(pictures[-eighth:], 3, stride=1, padding=1, count_include_pad=False)
    mixed = torch.cat([pictures[:-eighth], blurred])
    strength = 0.06 * torch.rand((len(mixed), 1, 1, 1), generator=generator)
    return (mixed + strength * torch.randn(mixed.shape, generator=generator)).clamp(-1.0, 1.0)


def train_judge(
    scenes: list[Scene], pictures: NDArray[np.uint8], autoencoder: AutoencoderKL, iterations: int, folder: Path
) -> Judge:
    """Trains on uint8 renders [N, 128, 128, 3] of `scenes`, a quarter of every batch being reconstructions by the
    autoencoder of the first renders; returns the averaged judge."""
    torch.manual_seed(0)
    judge = Judge(heads=[*HEAD_WORDS.items()]).to(memory_format=torch.channels_last)
    wanted = targets(scenes)
    reconstructed = _reconstructions(autoencoder, pictures[:RECONSTRUCTED])

    def loss(generator: torch.Generator) -> Tensor:
        repeats = torch.randint(0, len(reconstructed), (BATCH // 4,), generator=generator)
        picks = torch.randint(0, len(scenes), (BATCH - len(repeats),), generator=generator)
        renders = _scaled(np.stack([pictures[i] for i in picks.tolist()]))
        logits = judge(_blurred_and_noisy(torch.cat([reconstructed[repeats], renders]), generator))
        target = wanted[torch.cat([repeats, picks])]
        losses = [
            cross_entropy(logits[head], target[:, i], ignore_index=ABSENT)
            for i, head in enumerate(HEAD_WORDS)
            if bool((target[:, i] != ABSENT).any())
        ]
        return torch.stack(losses).sum() / len(HEAD_WORDS)

    schedule = Schedule(iterations=iterations, learning_rate=1e-3, warmup=100, ema_decay=0.99)
    return train(judge, loss, schedule, folder)
