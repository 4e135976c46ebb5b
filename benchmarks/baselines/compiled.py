"""The UNet under torch.compile: inductor with frozen weights, which it packs into oneDNN's layouts."""

from __future__ import annotations

import torch
from torch._inductor import config

from benchmarks.contender import Loaded, Task
from benchmarks.shape import inputs, load_unet


def load(task: Task) -> Loaded:
    """Options: `dtype`. Compiles here, at the first call, so that steps are only runs."""
    config.freezing = True
    dtype = getattr(torch, task.options["dtype"])
    unet = load_unet(task.shape, dtype)
    arguments = inputs(task.shape, task.batch, task.seed, dtype)
    compiled = torch.compile(unet, dynamic=False)

    def step() -> torch.Tensor:
        return compiled(**arguments, return_dict=False)[0]

    step()
    return Loaded(step, None, {"freezing": True})
