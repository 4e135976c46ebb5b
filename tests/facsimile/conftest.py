"""Tiny pipelines of two kinds, one that is asked with a prompt and one that is not, and a recipe of few steps."""

from __future__ import annotations

from typing import Any

import pytest

from contract.recipe import CalibrationRun, Recipe
from tests.support.tiny_families import build

STEPS = 3
PROMPTS = ["a red box", "a blue ball"]


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    inputs = CalibrationRun(num_prompts=2, num_inference_steps=STEPS, guidance_scale=3.0)
    return Recipe(method="minmax", keep_float=("@input", "@output", "@time"), calibration=inputs)


@pytest.fixture(scope="session", params=["sd1", "ddim"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def asked(kind: str) -> list[str] | None:
    return None if kind == "ddim" else PROMPTS


@pytest.fixture(scope="session")
def reference(kind: str) -> Any:
    return build(kind)
