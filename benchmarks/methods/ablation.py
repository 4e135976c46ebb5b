"""An ablation: a preset with some of its choices replaced, as ablations.toml declares it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict

from contract.recipe import Recipe
from contract.stages import Option, Stages

FILE = Path(__file__).with_name("ablations.toml")
OF_PRESET = "preset"
"""In place of a value: what the preset's own option has there, of whatever kind it is."""


class Ablation(BaseModel):
    """`stages` and `recipe` are what is replaced in the preset `preset`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    group: str
    preset: str
    stages: dict[str, dict[str, Any]] = {}
    recipe: dict[str, Any] = {}

    def applied(self, recipe: Recipe, stages: Stages) -> Recipe:
        """The preset's recipe, whose complete stages are `stages`, with the changes. Raises ValueError (pydantic's)
        where they are none that a recipe can have."""
        unknown = self.stages.keys() - Stages.model_fields.keys()
        if unknown:
            raise ValueError(f"there is no stage {', '.join(sorted(unknown))}")
        own = recipe.stages.model_dump(exclude_unset=True, exclude_none=True)
        changed = {stage: _replaced(getattr(stages, stage), change) for stage, change in self.stages.items()}
        return Recipe.model_validate({**recipe_json(recipe), **self.recipe, "stages": own | changed})


class Ablations(BaseModel):
    """All of a file: titles of the groups, and the ablations by the names of their arms."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    groups: dict[str, str]
    ablations: dict[str, Ablation]


def read_ablations(file: Path = FILE) -> Ablations:
    """The ablations that a file declares. Raises ValueError where it is malformed."""
    return Ablations.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))


def recipe_json(recipe: Recipe) -> dict[str, Any]:
    """A recipe as JSON values that reads back as the same: a stage's option keeps to what was said of it, since what
    was not is the method's."""
    return recipe.model_dump(mode="json", exclude={"stages"}) | {
        "stages": recipe.stages.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    }


def _replaced(option: Option, change: dict[str, Any]) -> dict[str, Any]:
    """An option after a change: fields that the change does not name stay where it is the same option."""
    named = {field: getattr(option, field) if value == OF_PRESET else value for field, value in change.items()}
    kinds = get_args(type(option).model_fields["kind"].annotation)
    return {**option.model_dump(), **named} if named.get("kind") in kinds else named
