"""torchao: linear layers in int8 with a scale per token found at run time, compiled as its documentation advises."""

from __future__ import annotations

import torch
from torch import nn
from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

from benchmarks.baselines.kept import is_kept
from benchmarks.contender import Loaded, Task
from benchmarks.shape import inputs, load_unet

PACKAGES = ("torchao",)


def load(task: Task) -> Loaded:
    """Options: `compile` (default true). Convolutions stay in bfloat16: torchao has no int8 convolution."""
    unet = load_unet(task.shape, torch.bfloat16)
    quantize_(
        unet,
        Int8DynamicActivationInt8WeightConfig(),
        filter_fn=lambda module, name: isinstance(module, nn.Linear) and not is_kept(name),
    )
    arguments = inputs(task.shape, task.batch, task.seed, torch.bfloat16)
    compiled = task.options.get("compile", True)
    run = torch.compile(unet, dynamic=False) if compiled else unet

    def step() -> torch.Tensor:
        return run(**arguments, return_dict=False)[0]

    step()
    return Loaded(step, unet, {"compiled": compiled})
