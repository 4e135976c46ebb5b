"""What to make of which model: a quantization as it is asked for, checked before any work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import quant.methods
from contract.catalogue import ModelDescription
from contract.errors import RecipeError
from contract.identifier import IDENTIFIER_RULE, is_identifier
from contract.recipe import Recipe
from contract.stages import Stages
from quant.calibration.run import Run
from quant.discovery import family_named, find
from quant.errors import RecipeMismatch
from quant.identity import code_digest, key_of, machine, weights_digest
from quant.sampling.prompts import Prompt
from quant.sampling.request import Sampling


@dataclass(frozen=True)
class QuantizationJob:
    """The variant's name, the model, the recipe, the prompts to calibrate on and those to report on."""

    model: str
    description: ModelDescription
    recipe: Recipe
    variant: str
    calibration: list[Prompt]
    held_out: list[Prompt]
    prompt_set: str

    @property
    def exact(self) -> ModelDescription:
        """The model in float32: what calibration computes with, whatever is served."""
        return self.description.model_copy(update={"dtype": "float32"})

    @property
    def used(self) -> list[Prompt]:
        """The prompts that the recipe calibrates on."""
        return self.calibration[: self.recipe.calibration.num_prompts]

    @property
    def sampling(self) -> Sampling:
        """The settings of all pictures that are drawn, but for their prompts."""
        size = (self.description.width, self.description.height)
        return Sampling.of_calibration(self.recipe.calibration, size)

    @property
    def run(self) -> Run:
        """What calibration draws."""
        return Run(tuple(prompt.text for prompt in self.used), self.sampling)

    def stages(self) -> Stages:
        """All stages of the recipe. Raises RecipeMismatch where names, recipe and model, or the two prompt lists, do
        not fit."""
        for what, name in (("model", self.model), ("variant", self.variant)):
            if not is_identifier(name):
                raise RecipeMismatch(f"the {what}'s name {name!r} must have {IDENTIFIER_RULE}")
        check_asked(self.description.family, [*self.calibration, *self.held_out], self.model)
        held_out = {prompt.text for prompt in self.held_out}
        shared = {p.text for p in self.calibration if p.text is not None and p.text in held_out}
        if shared:
            raise RecipeMismatch(f"{len(shared)} calibration prompts are also held out for the report: {min(shared)!r}")
        return stages_of(self.recipe, self.description.family, self.calibration, self.model)

    def identity(self) -> str:
        """What finished pieces of its work depend on, as a name."""
        return key_of(
            {
                "model": weights_digest(self.description.source),
                "recipe": self.recipe.model_dump(mode="json"),
                "stages": self.stages().model_dump(mode="json"),
                "size": (self.description.width, self.description.height),
                "prompts": [prompt.text for prompt in self.used],
                "code": code_digest(),
                "machine": machine("cpu"),
            }
        )[:24]


def stages_of(recipe: Recipe, family: str, prompts: Sequence[Prompt], model: str = "the model") -> Stages:
    """All stages of a recipe for a model of a family, calibrated on `prompts`. Raises RecipeMismatch where recipe,
    model and prompts do not fit."""
    if recipe.family not in (None, family):
        raise RecipeMismatch(f"the recipe is for {recipe.family}, {model} is {family}")
    check_asked(family, prompts, model)
    if len(prompts) < recipe.calibration.num_prompts:
        raise RecipeMismatch(
            f"the recipe calibrates on {recipe.calibration.num_prompts} prompts, there are {len(prompts)}"
        )
    try:
        return recipe.complete(find(quant.methods, recipe.method).STAGES)
    except RecipeError as error:
        raise RecipeMismatch(str(error)) from error


def check_asked(family: str, prompts: Sequence[Prompt], model: str) -> None:
    """Raises RecipeMismatch for texts where the family takes none, and for pictures without one where it does."""
    asks = family_named(family).asked
    given = {prompt.text is not None for prompt in prompts}
    if asks == "nothing" and True in given:
        raise RecipeMismatch(f"{model} takes no prompt: calibrate on `seeds`, pictures without one")
    if asks == "text" and False in given:
        raise RecipeMismatch(f"{model} draws from prompts: calibrate on a set of them, not on seeds alone")
