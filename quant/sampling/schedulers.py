"""Samplers by name, for those kinds of models that can be drawn with them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import diffusers
from diffusers import DiffusionPipeline

from quant.discovery import family_of
from quant.errors import SamplingError


@dataclass(frozen=True)
class Sampler:
    """A scheduler's class in diffusers, what its config says beside the model's own, and what it calls the shift of a
    flow's timesteps."""

    kind: str
    config: dict[str, Any] = field(default_factory=dict)
    shift: str = "shift"


_FLOW: dict[str, Any] = {
    "config": {"prediction_type": "flow_prediction", "use_flow_sigmas": True},
    "shift": "flow_shift",
}

SAMPLERS: dict[str, dict[str, Sampler]] = {
    "noise": {
        "ddim": Sampler("DDIMScheduler"),
        "ddpm": Sampler("DDPMScheduler"),
        "dpm++2m": Sampler("DPMSolverMultistepScheduler"),
        "euler": Sampler("EulerDiscreteScheduler"),
        "euler-ancestral": Sampler("EulerAncestralDiscreteScheduler"),
        "heun": Sampler("HeunDiscreteScheduler"),
        "pndm": Sampler("PNDMScheduler"),
        "unipc": Sampler("UniPCMultistepScheduler"),
    },
    "flow": {
        "dpm++2m": Sampler("DPMSolverMultistepScheduler", **_FLOW),
        "euler": Sampler("FlowMatchEulerDiscreteScheduler"),
        "heun": Sampler("FlowMatchHeunDiscreteScheduler"),
        "unipc": Sampler("UniPCMultistepScheduler", **_FLOW),
    },
    "own": {},
}
"""By the kind of model (`Family.samplers`), by name."""

SCHEDULERS = tuple(sorted({name for samplers in SAMPLERS.values() for name in samplers}))
"""Samplers that a request can ask for; without one the model's own is used."""


def schedulers_of(pipeline: DiffusionPipeline) -> tuple[str, ...]:
    """The samplers that this model can be asked to draw with."""
    return tuple(SAMPLERS[family_of(pipeline).samplers])


def new_scheduler(pipeline: DiffusionPipeline, name: str | None = None) -> Any:
    """A fresh scheduler, since schedulers keep state: of that name, or of the model's own class.

    Raises SamplingError for one that there is not, or that does not fit this model."""
    own = pipeline.scheduler
    if name is None:
        return type(own).from_config(own.config)
    sampler = SAMPLERS[family_of(pipeline).samplers].get(name)
    if sampler is None:
        fitting = ", ".join(schedulers_of(pipeline)) or "the model's own only"
        raise SamplingError(f"scheduler {name!r} is not one of those that fit this model: {fitting}")
    config = dict(own.config)
    if sampler.shift != "shift" and "shift" in config:
        config[sampler.shift] = config.pop("shift")
    return getattr(diffusers, sampler.kind).from_config(config, **sampler.config)
