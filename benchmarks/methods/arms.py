"""The arms of the study: a recipe each, from the presets that exist now and from the ablations of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import quant.methods
from benchmarks.methods.ablation import Ablation, Ablations, recipe_json
from contract.errors import ContractError
from contract.recipe import Recipe, read_recipe
from contract.stages import Stages
from quant.discovery import find
from quant.errors import QuantError
from quant.identity import key_of
from quant.quantization.resolution import Resolution

PRESETS = ("minmax", "q-diffusion", "ptq4dm", "tfmq", "eda-dm", "pcr", "s2p-v1", "s2p-v2", "best")
BITS = ("w8a8", "w4a8", "w4a6")
EXTREME = ("w6a6", "w3a8", "w4a4")
"""Bits that only some presets go to."""
EXPECTED = (*(f"{preset}-{bits}" for preset in PRESETS for bits in BITS), *(f"best-{bits}" for bits in EXTREME))

FAULTS = (ContractError, QuantError, ValueError, ImportError, SyntaxError, AttributeError)
"""What goes wrong with a preset that is being written, or whose method is."""


@dataclass(frozen=True)
class Arm:
    """One recipe to measure. `preset` is without bits for a preset's arm; an ablation's names the arm that it changes,
    and has a group. `fault` says why there is no recipe to run."""

    name: str
    preset: str
    bits: str
    group: str | None = None
    recipe: Recipe | None = None
    stages: Stages | None = None
    fault: str | None = None

    @property
    def identity(self) -> str:
        """What this arm does, whatever it is called; "" for one without a recipe."""
        if self.recipe is None or self.stages is None:
            return ""
        return identity_of(self.recipe.model_dump(mode="json"), self.stages.model_dump(mode="json"))


def identity_of(recipe: dict[str, Any], stages: dict[str, Any]) -> str:
    """A key of a recipe and its complete stages, both as JSON values."""
    return key_of({"recipe": {k: v for k, v in recipe.items() if k != "stages"}, "stages": stages})


def all_arms(recipes: Path, ablations: Ablations, resolution: Resolution) -> list[Arm]:
    """The presets of a folder as they are followed on the study's model, in its order, those that are expected and not
    there too, then the ablations."""
    files = {path.stem: path for path in recipes.glob("*.toml")}
    names = sorted({*EXPECTED, *files}, key=_place)
    presets = {name: _preset(name, files.get(name), resolution) for name in names}
    changed = [_ablation(name, each, presets.get(each.preset)) for name, each in ablations.ablations.items()]
    return [*presets.values(), *changed]


def sames(arms: Iterable[Arm]) -> dict[str, str]:
    """Arms that do the same as an earlier one, which is run in their place."""
    first: dict[str, str] = {}
    return {
        arm.name: first[arm.identity]
        for arm in arms
        if arm.identity and first.setdefault(arm.identity, arm.name) != arm.name
    }


def _preset(name: str, path: Path | None, resolution: Resolution) -> Arm:
    preset, bits = _split(name)
    if path is None:
        return Arm(name, preset, bits, fault=f"there is no preset recipes/{name}.toml")
    try:
        recipe = resolution.of(read_recipe(path))
        if bits and bits != recipe.scheme:
            return Arm(name, preset, bits, fault=f"{path.name} is called {bits} and is {recipe.scheme}")
        return Arm(name, preset, recipe.scheme, recipe=recipe, stages=_stages(recipe))
    except FAULTS as error:
        return Arm(name, preset, bits, fault=_sentence(error))


def _ablation(name: str, ablation: Ablation, base: Arm | None) -> Arm:
    bits = _split(ablation.preset)[1]
    if base is None or base.recipe is None or base.stages is None:
        reason = base.fault if base else f"there is no preset recipes/{ablation.preset}.toml"
        return Arm(name, ablation.preset, bits, ablation.group, fault=reason)
    try:
        recipe = ablation.applied(base.recipe, base.stages)
        return Arm(name, ablation.preset, recipe.scheme, ablation.group, recipe, _stages(recipe))
    except FAULTS as error:
        return Arm(name, ablation.preset, bits, ablation.group, fault=_sentence(error))


def _stages(recipe: Recipe) -> Stages:
    """The complete stages, as they will be once the recipe has travelled to the process that follows it."""
    stages: Stages = Recipe.model_validate(recipe_json(recipe)).complete(find(quant.methods, recipe.method).STAGES)
    return stages


def _split(name: str) -> tuple[str, str]:
    found = re.fullmatch(r"(.+)-(w\da\d)", name)
    return (found[1], found[2]) if found else (name, "")


def _place(name: str) -> tuple[int, int, str]:
    preset, bits = _split(name)
    order = (*BITS, *EXTREME)
    return (
        PRESETS.index(preset) if preset in PRESETS else len(PRESETS),
        order.index(bits) if bits in order else len(order),
        name,
    )


def _sentence(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
