"""The process without a service that `benchmarks.service_step` compares with: one JSON line in, seconds out."""

from __future__ import annotations

import json
import os
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline

from benchmarks.served import MODEL, PROMPT
from quant.checkpoints.pipelines import denoiser_of, load_reference, load_variant
from quant.cli.options import MODELS, VARIANTS, describe, variant_folder
from quant.sampling.generation import generate
from quant.sampling.request import Sampling


@cache
def pipeline(variant: str, dtype: str) -> DiffusionPipeline:
    """The pipeline as a worker loads it."""
    if variant == "reference":
        return load_reference(describe(MODEL, MODELS).model_copy(update={"dtype": dtype}))
    return load_variant(variant_folder(MODEL, variant, VARIANTS), dtype)


@torch.no_grad()
def seconds(what: str, variant: str, steps: int, dtype: str) -> float:
    """Of a picture in so many steps, or of so many calls of its denoiser with guidance's batch of two."""
    drawn_with = pipeline(variant, dtype)
    if what == "picture":
        start = time.perf_counter()
        generate(drawn_with, Sampling(PROMPT, seed=7, num_inference_steps=steps))
        return time.perf_counter() - start
    denoiser = denoiser_of(drawn_with)
    arguments = _inputs(denoiser)
    timesteps = torch.linspace(980, 20, 25).long().tolist()
    start = time.perf_counter()
    for step in range(steps):
        denoiser(timestep=timesteps[step % len(timesteps)], **arguments)
    return time.perf_counter() - start


def _inputs(denoiser: Any) -> dict[str, Any]:
    config, kind = denoiser.config, denoiser.dtype
    noise = torch.randn((2, config.in_channels, 16, 16), generator=torch.Generator().manual_seed(0))
    text = torch.randn((2, 48, config.cross_attention_dim), generator=torch.Generator().manual_seed(1))
    return {"sample": noise.to(kind), "encoder_hidden_states": text.to(kind), "return_dict": False}


def main(dtype: str) -> None:
    """Answer until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        answers.write(f"{seconds(**json.loads(line), dtype=dtype)}\n")
        answers.flush()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main(sys.argv[1])
