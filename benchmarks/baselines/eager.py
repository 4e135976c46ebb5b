"""The UNet as diffusers runs it, in one floating-point type, with the default layout or channels-last."""

from __future__ import annotations

import torch

from benchmarks.contender import Loaded, Task
from benchmarks.shape import inputs, load_unet


def load(task: Task) -> Loaded:
    """Options: `dtype`, and `channels_last` for weights and latents in that layout."""
    dtype = getattr(torch, task.options["dtype"])
    unet = load_unet(task.shape, dtype)
    arguments = inputs(task.shape, task.batch, task.seed, dtype)
    if task.options.get("channels_last"):
        unet = unet.to(memory_format=torch.channels_last)
        arguments["sample"] = arguments["sample"].to(memory_format=torch.channels_last)
    return Loaded(lambda: unet(**arguments, return_dict=False)[0], unet)
