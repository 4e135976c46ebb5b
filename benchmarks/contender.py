"""Who is measured: a name, the module that loads it, the environment that it runs in, and its options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from benchmarks.shape import Shape

Step = Callable[[], Tensor]
"""One forward pass of the denoiser on fixed inputs; returns the predicted noise [B, 4, side, side]."""


@dataclass(frozen=True)
class Task:
    """What a contender must load: the shape, latents in a batch, seed of the inputs, threads, and its own options."""

    shape: Shape
    batch: int
    seed: int
    threads: int
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Loaded:
    """A contender that is ready: its step; the module behind it, where there is one in Python; notes for the record."""

    step: Step
    module: Any = None
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Contender:
    """`module` has a function `load(task) -> Loaded`; `peer` says that it runs in the rivals' environment.

    `bytes_per_parameter` is about what it takes in memory, to decide which contenders are alive together. A module that
    `prepares` has a function `prepare(task)`, called in a process before, that makes files which take long to make."""

    name: str
    module: str
    bytes_per_parameter: float
    options: Mapping[str, Any] = field(default_factory=dict)
    peer: bool = False
    prepares: bool = False


CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender("ours-w8a8", "benchmarks.ours", 2.0, {"scheme": "w8a8"}, prepares=True),
        Contender("ours-w4a8", "benchmarks.ours", 2.0, {"scheme": "w4a8"}, prepares=True),
        Contender("ours-w4a8-packed", "benchmarks.ours", 1.5, {"scheme": "w4a8-packed"}, prepares=True),
        Contender("diffusers-fp32", "benchmarks.baselines.eager", 4.5, {"dtype": "float32"}),
        Contender("diffusers-bf16", "benchmarks.baselines.eager", 2.5, {"dtype": "bfloat16"}),
        Contender(
            "diffusers-bf16-channels-last",
            "benchmarks.baselines.eager",
            2.5,
            {"dtype": "bfloat16", "channels_last": True},
        ),
        Contender("compiled-bf16", "benchmarks.baselines.compiled", 5.0, {"dtype": "bfloat16"}),
        Contender(
            "openvino-bf16", "benchmarks.baselines.openvino_ir", 5.0, {"precision": "bf16"}, peer=True, prepares=True
        ),
        Contender(
            "openvino-int8", "benchmarks.baselines.openvino_ir", 3.0, {"precision": "int8"}, peer=True, prepares=True
        ),
        Contender("torchao-int8-dynamic", "benchmarks.baselines.torchao_dynamic", 4.0, peer=True),
        Contender("sdnq-int8", "benchmarks.baselines.sdnq_int8", 5.0, peer=True),
        Contender("quanto-int8", "benchmarks.baselines.quanto_int8", 5.0, peer=True),
    )
}
REFERENCE = "diffusers-fp32"
"""The contender whose output the others' errors are measured against."""
