"""The door: a body is checked against what the workers offer and what is published, and becomes a complete payload."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence

from app.errors import Fault, InvalidRequest
from app.request_bodies import CalibrationBody, ComparisonBody, EvaluationBody, GenerationBody, SamplingBody
from contract.catalogue import SEEDS, Catalogue, ModelDescription
from contract.errors import RecipeError, VariantExists
from contract.payloads import (
    MAX_EVALUATED,
    REFERENCE,
    CalibrationPayload,
    ComparisonPayload,
    EvaluationPayload,
    GenerationPayload,
    SamplingPayload,
)
from contract.recipe import CalibrationRun, Recipe
from contract.registry import Registry
from contract.sampling import SEED_RANGE

LEAST_MEASURED = 16
"""Pixels of a side: the window of structural similarity has 11, and sides are multiples of 8."""

HELD_OUT = 16
"""Prompts that a variant is measured on."""


def generation(body: GenerationBody, catalogue: Catalogue, registry: Registry) -> GenerationPayload:
    """The payload of a generation. Raises InvalidRequest."""
    sampling = _sampling(body, catalogue)
    if body.variant != REFERENCE:
        _published(registry, body.model, body.variant, REFERENCE)
    if body.score and body.variant == REFERENCE:
        raise _invalid("score", "is for variants: the reference cannot be measured against itself")
    if body.score:
        _measurable(sampling)
    return GenerationPayload.of(sampling, output_format=body.output_format, score=body.score)


def comparison(body: ComparisonBody, catalogue: Catalogue, registry: Registry) -> ComparisonPayload:
    """The payload of a comparison. Raises InvalidRequest."""
    sampling = _sampling(body, catalogue)
    _published(registry, body.model, body.variant)
    _measurable(sampling)
    return ComparisonPayload.of(sampling)


def calibration(body: CalibrationBody, catalogue: Catalogue, registry: Registry) -> CalibrationPayload:
    """The payload of a calibration. Raises InvalidRequest, and VariantExists for a name that is taken."""
    description = _model(body.model, catalogue)
    recipe, held_out = _fitted(_recipe(body.recipe, catalogue), body.prompts)
    _known("recipe.method", recipe.method, catalogue.methods)
    try:
        recipe.complete(catalogue.methods[recipe.method])
    except RecipeError as error:
        raise _invalid("recipe", str(error)) from error
    if recipe.family not in (None, description.family):
        raise _invalid("recipe.family", f"must be {description.family}, the family of {body.model}, or left out")
    if description.asked == "nothing" and body.prompts != SEEDS:
        raise _invalid("prompts", f"must be {SEEDS}: {body.model} takes no prompt")
    if isinstance(body.prompts, str):
        _known("prompts", body.prompts, _prompt_sets(description, catalogue))
    elif len(set(body.prompts)) < len(body.prompts):
        raise _invalid("prompts", "must not repeat a prompt")
    variant = body.variant or recipe.variant
    if variant == REFERENCE:
        raise _invalid("variant", f"must not be {REFERENCE}: that names the model itself")
    if registry.get(body.model, variant):
        raise VariantExists(f"{body.model} already has this variant, and a published one never changes")
    prompts = body.prompts if isinstance(body.prompts, str) else tuple(body.prompts)
    return CalibrationPayload(model=body.model, variant=variant, recipe=recipe, prompts=prompts, held_out=held_out)


def evaluation(body: EvaluationBody, catalogue: Catalogue, registry: Registry) -> EvaluationPayload:
    """The payload of an evaluation. Raises InvalidRequest."""
    description = _model(body.model, catalogue)
    metrics = [metric.partition(":")[0] for metric in body.metrics]
    for field, names, known in (
        ("prompt_sets", body.prompt_sets, _prompt_sets(description, catalogue)),
        ("metrics", metrics, catalogue.metrics),
    ):
        for name in names:
            _known(field, name, known)
    _unrepeated("prompt_sets", body.prompt_sets)
    _unrepeated("metrics", body.metrics)
    return EvaluationPayload(
        model=body.model,
        variants=_evaluated(body, _variants(registry, body.model)),
        prompt_sets=tuple(body.prompt_sets),
        limit=body.limit,
        metrics=tuple(body.metrics),
        seed=body.seed,
    )


def _evaluated(body: EvaluationBody, published: list[str]) -> tuple[str, ...]:
    """The variants that are meant, each of them published."""
    if body.variants != "all":
        for name in body.variants:
            if name == REFERENCE:
                raise _invalid("variants", f"must not name {REFERENCE}: every variant is measured against it")
            _known("variants", name, published)
        _unrepeated("variants", body.variants)
        return tuple(body.variants)
    if not published:
        raise _invalid("variants", f"{body.model} has none yet")
    if len(published) > MAX_EVALUATED:
        raise _invalid("variants", f"{body.model} has {len(published)}: name at most {MAX_EVALUATED} of them")
    return tuple(published)


def _sampling(body: GenerationBody | ComparisonBody, catalogue: Catalogue) -> SamplingPayload:
    """What the body asks for, and where it leaves a field out, what the model is meant for."""
    description = _model(body.model, catalogue)
    _asked(body, description)
    if body.scheduler is not None:
        _known("scheduler", body.scheduler, catalogue.schedulers)
    fields = set(SamplingPayload.model_fields)
    asked = body.model_dump(include=fields)
    defaults = {**description.model_dump(include=fields), "seed": secrets.randbelow(SEED_RANGE)}
    left_out = {name: value for name, value in defaults.items() if asked[name] is None}
    sampling = SamplingPayload.model_validate(asked | left_out)
    for side, pixels, most in (
        ("width", sampling.width, description.max_width),
        ("height", sampling.height, description.max_height),
    ):
        if pixels > most:
            raise _invalid(side, f"must be at most {most} for {body.model}")
    return sampling


def _asked(body: SamplingBody, description: ModelDescription) -> None:
    """Refuses a prompt that is missing, or that the model does not take."""
    if description.asked == "text" and body.prompt is None:
        raise _invalid("prompt", f"is needed: {body.model} draws from one")
    if description.asked == "nothing":
        for field, given in (("prompt", body.prompt), ("negative_prompt", body.negative_prompt or None)):
            if given is not None:
                raise _invalid(field, f"must be left out: {body.model} takes none, its seed alone makes the picture")


def _measurable(sampling: SamplingPayload) -> None:
    for side, pixels in (("width", sampling.width), ("height", sampling.height)):
        if pixels < LEAST_MEASURED:
            raise _invalid(side, f"must be at least {LEAST_MEASURED} where pictures are measured")


def _model(name: str, catalogue: Catalogue) -> ModelDescription:
    _known("model", name, catalogue.models)
    return catalogue.models[name]


def _published(registry: Registry, model: str, variant: str, *others: str) -> None:
    """Refuses a variant that is not published, and tells what is, with the `others` that could be named as well."""
    if registry.get(model, variant) is None:
        _known("variant", variant, [*others, *_variants(registry, model)])


def _variants(registry: Registry, model: str) -> list[str]:
    return [published.card.variant for published in registry.variants(model)]


def _prompt_sets(description: ModelDescription, catalogue: Catalogue) -> tuple[str, ...]:
    """What can be named as a prompt set for this model."""
    return catalogue.prompt_sets if description.asked == "text" else (SEEDS,)


def _recipe(recipe: str | Recipe, catalogue: Catalogue) -> Recipe:
    if isinstance(recipe, Recipe):
        return recipe
    _known("recipe", recipe, catalogue.presets)
    return catalogue.presets[recipe]


def _fitted(recipe: Recipe, prompts: str | list[str]) -> tuple[Recipe, int]:
    """The recipe for these prompts, and how many of them are held out: a quarter of a user's own list."""
    if isinstance(prompts, str):
        return recipe, HELD_OUT
    held_out = min(HELD_OUT, max(1, len(prompts) // 4))
    num_prompts = min(recipe.calibration.num_prompts, len(prompts) - held_out)
    inputs = CalibrationRun.model_validate({**recipe.calibration.model_dump(), "num_prompts": num_prompts})
    return recipe.model_copy(update={"calibration": inputs}), held_out


def _known(field: str, name: str, allowed: Iterable[str]) -> None:
    names = list(allowed)
    if name not in names:
        raise _invalid(field, f"must be one of: {', '.join(names)}" if names else "there is none yet")


def _unrepeated(field: str, names: Sequence[str]) -> None:
    if len(set(names)) < len(names):
        raise _invalid(field, "must not repeat a name")


def _invalid(field: str, message: str) -> InvalidRequest:
    return InvalidRequest([Fault(loc=("body", *field.split(".")), msg=message)])
