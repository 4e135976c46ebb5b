"""What this library offers, by name, for those who announce it."""

from __future__ import annotations

from pathlib import Path

import quant.families
import quant.methods
import quant.metrics
from contract.catalogue import Catalogue, ModelDescription
from contract.recipe import read_presets
from quant import processor
from quant.generation import SCHEDULERS
from quant.prompts import prompt_sets
from quant.registry import find, names


def catalogue(models: dict[str, ModelDescription], recipes: Path, prompts: Path) -> Catalogue:
    """The catalogue of these models with the presets of `recipes` and the prompt sets of `prompts`. Raises KernelError
    where the cap on the processor makes no sense, so that a service says so when it starts."""
    processor.check()
    return Catalogue(
        models=models,
        methods={name: find(quant.methods, name).STAGES for name in names(quant.methods)},
        families=names(quant.families),
        metrics=names(quant.metrics),
        schedulers=SCHEDULERS,
        presets=read_presets(recipes),
        prompt_sets=prompt_sets(prompts),
    )
