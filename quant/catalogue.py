"""What this library offers, by name, for those who announce it."""

from __future__ import annotations

from pathlib import Path

import quant.fidelity.metrics
import quant.methods
from contract.catalogue import Catalogue, ModelDescription
from contract.recipe import read_presets
from quant.discovery import families, find, names
from quant.engine import processor
from quant.sampling.prompts import prompt_sets
from quant.sampling.schedulers import SCHEDULERS


def catalogue(models: dict[str, ModelDescription], recipes: Path, prompts: Path) -> Catalogue:
    """The catalogue of these models with the presets of `recipes` and the prompt sets of `prompts`. Raises KernelError
    where the cap on the processor makes no sense, so that a service says so when it starts."""
    processor.check()
    return Catalogue(
        models={name: _told(model) for name, model in models.items()},
        methods={name: find(quant.methods, name).STAGES for name in names(quant.methods)},
        families=tuple(families()),
        metrics=names(quant.fidelity.metrics),
        schedulers=SCHEDULERS,
        presets=read_presets(recipes),
        prompt_sets=prompt_sets(prompts),
    )


def _told(model: ModelDescription) -> ModelDescription:
    """With what a picture is asked with; a family that there is not is told when the model is loaded."""
    family = families().get(model.family)
    return model if family is None else model.model_copy(update={"asked": family.asked})
