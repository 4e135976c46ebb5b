"""Stages of a recipe: what a method's become with a recipe's own, and what contradicts itself."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from contract.errors import RecipeError
from contract.recipe import CalibrationRun, Recipe
from contract.stages import (
    AdaRound,
    EveryStep,
    FineGrained,
    FineTuning,
    LearnedRanges,
    ObservedRanges,
    ProgressiveRanges,
    RelaxedInputs,
    RelaxedSteps,
    RelaxedWindow,
    StageOptions,
    Stages,
    Tdac,
    UniformSteps,
    WeightScales,
)

FAULTS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"ranges": LearnedRanges(), "per_step": True}, {}, "timestep_groups must be 1, not 10"),
    ({"ranges": LearnedRanges()}, {"timestep_groups": 4}, "timestep_groups must be 1, not 4"),
    ({"rounding": FineGrained()}, {"timestep_groups": 2}, "learned ranges are shared by all steps"),
    ({"ranges": ProgressiveRanges()}, {}, "progressive ranges are one for every step"),
    ({"ranges": ProgressiveRanges(), "per_step": True}, {"timestep_groups": 5}, "timestep_groups must be 10"),
    ({"ranges": ProgressiveRanges(), "per_step": True}, {"timestep_groups": 1}, "timestep_groups must be 10"),
    (
        {"bits_over_time": RelaxedWindow(start=0.5, end=1.0, bits=4), "per_step": True},
        {},
        "relaxed steps have 4 bits, fewer than activation_bits 8",
    ),
    (
        {"bits_over_time": RelaxedSteps(bits=5), "per_step": True},
        {"activation_bits": 6},
        "5 bits, fewer than activation_bits 6",
    ),
    ({"bits_over_time": RelaxedInputs(bits=4), "per_step": True}, {}, "4 bits, fewer than activation_bits 8"),
    ({"bits_over_time": RelaxedInputs()}, {}, "relaxed steps need a range for every step"),
    ({"bits_over_time": RelaxedSteps()}, {}, "relaxed steps need a range for every step"),
    ({"bits_over_time": RelaxedSteps(), "per_step": True}, {"timestep_groups": 3}, "need a range for every step"),
    ({"inputs": Tdac()}, {"num_prompts": 9}, "9 prompts cannot cover 10 steps"),
    ({"inputs": UniformSteps(steps=11, prompts_per_step=2)}, {}, "uniform inputs of 11 steps: the sampler has 10"),
    ({"rounding": AdaRound(kind="brecq")}, {"dynamic_activations": True}, "only rounding to the nearest"),
    ({"rounding": FineGrained()}, {"dynamic_activations": True}, "only rounding to the nearest"),
    ({"ranges": LearnedRanges()}, {"dynamic_activations": True}, "no ranges to calibrate"),
    ({"fine_tuning": FineTuning(kind="parallel")}, {"dynamic_activations": True}, "no ranges to calibrate"),
    (
        {"fine_tuning": FineTuning(kind="parallel", target="reference_trajectory")},
        {},
        "parallel fine-tuning is on the reference's trajectory already",
    ),
    (
        {"fine_tuning": FineTuning(kind="serial", target="reference_trajectory")},
        {},
        "serial fine-tuning is on the reference's trajectory already",
    ),
    (
        {"fine_tuning": FineTuning(kind="serial_to_parallel", guided=True)},
        {"guidance_scale": 1.0},
        "guided fine-tuning needs guidance: guidance_scale is 1.0",
    ),
]
FITTING: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"ranges": LearnedRanges(), "per_step": True}, {"timestep_groups": 1}),
    ({"rounding": FineGrained(learn_ranges=False), "per_step": True}, {}),
    ({"ranges": ProgressiveRanges()}, {"timestep_groups": 10}),
    ({"bits_over_time": RelaxedSteps(), "per_step": True}, {"timestep_groups": 10}),
    ({"bits_over_time": RelaxedWindow(start=0.0, end=0.2, bits=8), "per_step": True}, {}),
    ({"inputs": Tdac()}, {"num_prompts": 10}),
    ({"ranges": ObservedRanges(kind="ema")}, {"dynamic_activations": True}),
    ({"fine_tuning": FineTuning(kind="serial_to_parallel", target="reference_trajectory")}, {}),
    ({"fine_tuning": FineTuning(kind="serial_to_parallel", guided=True)}, {"guidance_scale": 1.5}),
]


def _recipe(**options: Any) -> Recipe:
    inputs = {"num_prompts": 12, "num_inference_steps": 10}
    inputs |= {name: options.pop(name) for name in ("num_prompts", "guidance_scale") if name in options}
    return Recipe(method="minmax", calibration=CalibrationRun(**inputs), **options)


def _method(stages: dict[str, Any]) -> Stages:
    return Stages(**{"inputs": EveryStep(prompts=2), **stages})


@pytest.mark.parametrize(("stages", "options", "message"), FAULTS)
def test_contradictions_are_refused(stages: dict[str, Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        _recipe(**options).complete(_method(stages))


@pytest.mark.parametrize(("stages", "options", "message"), FAULTS)
def test_contradictions_of_a_recipes_own_are_refused(
    stages: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    flags: dict[str, Any] = {name: stages[name] for name in ("per_step", "split_shortcuts") if name in stages}
    own = StageOptions(**{name: option for name, option in stages.items() if name not in flags})
    with pytest.raises(RecipeError, match=message):
        _recipe(stages=own, **options).complete(_method(flags))


@pytest.mark.parametrize(("stages", "options"), FITTING)
def test_what_goes_together_is_taken(stages: dict[str, Any], options: dict[str, Any]) -> None:
    complete = _recipe(**options).complete(_method(stages))
    assert complete == _method(stages)


@pytest.mark.parametrize(
    ("stage", "option", "named"),
    [
        ("rounding", {"kind": "brecq", "iteratons": 5}, "iteratons"),
        ("rounding", {"kind": "nearest", "iterations": 5}, "iterations"),
        ("time_path", {"kind": "tiar", "gamma": 0.1}, "gamma"),
        ("ranges", {"kind": "minmax", "passes": 2}, "passes"),
        ("inputs", {"kind": "tdac", "prompts": 2}, "prompts"),
        ("fine_tuning", {"kind": "serial", "learning_rate": 0.1}, "learning_rate"),
        ("output_correction", {"kind": "ptqd", "steps": 3}, "steps"),
        ("bits", {"kind": "greedy", "bits": 8}, "bits"),
        ("bits_over_time", {"kind": "window", "start": 0.1, "end": 0.5, "width": 2}, "width"),
        ("weight_scales", {"kind": "lsq"}, "weight_scales.kind"),
        ("ranges", {"kind": "lqs"}, "lqs"),
        ("quantizer", {"kind": "x"}, "quantizer"),
    ],
)
def test_unknown_options_are_refused_by_name(stage: str, option: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        Recipe.model_validate({"method": "minmax", "stages": {stage: option}})


@pytest.mark.parametrize(
    "option",
    [
        {"rounding": {"kind": "brecq", "iterations": 0}},
        {"rounding": {"kind": "brecq", "learning_rate": 0.0}},
        {"rounding": {"kind": "fbr", "drop": 1.5}},
        {"rounding": {"kind": "fbr", "gamma": float("inf")}},
        {"fine_tuning": {"kind": "serial", "weight_learning_rate": float("nan")}},
        {"bits": {"kind": "greedy", "lifted_bits": 9}},
        {"bits": {"kind": "greedy", "extra_bits": 0.0}},
        {"bits_over_time": {"kind": "window", "start": 0.5, "end": 0.5}},
        {"bits_over_time": {"kind": "window", "start": 0.0, "end": 0.5, "bits": 12}},
        {"inputs": {"kind": "tdac", "density_radius": 0.0}},
    ],
)
def test_numbers_outside_their_limits_are_refused(option: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        StageOptions.model_validate(option)


def test_an_option_of_the_methods_kind_keeps_what_the_recipe_does_not_name() -> None:
    method = Stages(rounding=AdaRound(kind="brecq", iterations=70, batch=8), ranges=ProgressiveRanges(passes=3))
    own = StageOptions.model_validate({"rounding": {"kind": "brecq", "batch": 4}, "ranges": {"kind": "ema"}})
    changed = method.changed(own)
    assert changed.rounding == AdaRound(kind="brecq", iterations=70, batch=4)
    assert changed.ranges == ObservedRanges(kind="ema") and changed.inputs == method.inputs
    assert method.changed(StageOptions()) == method
    other = method.changed(StageOptions.model_validate({"rounding": {"kind": "adaround"}}))
    assert other.rounding == AdaRound(kind="adaround")


def test_an_option_without_its_kind_is_of_the_default_one() -> None:
    method = Stages(weight_scales=WeightScales(kind="mse"))
    recipe = Recipe.model_validate({"method": "minmax", "stages": {"weight_scales": {}}})
    assert recipe.complete(method).weight_scales == WeightScales(kind="minmax")


def test_a_recipes_own_window_takes_the_place_of_the_methods() -> None:
    method = Stages(bits_over_time=RelaxedWindow(start=0.5, end=1.0))
    own = StageOptions.model_validate({"bits_over_time": {"kind": "window", "start": 0.1, "end": 0.2}})
    assert method.changed(own).bits_over_time == RelaxedWindow(start=0.1, end=0.2)
