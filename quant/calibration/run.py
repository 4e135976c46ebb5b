"""What a calibration draws."""

from __future__ import annotations

from dataclasses import dataclass

from diffusers import DiffusionPipeline

from quant.sampling.request import Asked, Sampling
from quant.sampling.walk import Walk

BATCH = 32
"""Rows that go through a denoiser together where no gradient is needed."""


@dataclass(frozen=True)
class Run:
    """What calibration draws: prompt i with seed `sampling.seed` + i; the first of them are enough for most stages."""

    prompts: tuple[Asked, ...]
    sampling: Sampling

    def walks(self, pipeline: DiffusionPipeline, count: int, first: int = 0, batch: int = BATCH // 2) -> list[Walk]:
        """`count` pictures from the `first` on, `batch` together; after the last prompt the first comes again, with
        another seed."""
        seeds = [self.sampling.seed + i for i in range(first, first + count)]
        texts = [self.prompts[i % len(self.prompts)] for i in range(first, first + count)]
        return [
            Walk(pipeline, texts[start : start + batch], seeds[start : start + batch], self.sampling)
            for start in range(0, count, batch)
        ]
