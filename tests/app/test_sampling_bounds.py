"""Requests and records have the same bounds: what a client may ask for can be stored, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from app.request_bodies import GenerationBody
from contract.payloads import GenerationPayload
from tests.support.submissions import PAYLOAD

INSIDE = {
    "seed": (0, 4_294_967_295),
    "num_inference_steps": (1, 150),
    "guidance_scale": (0.0, 30.0),
    "width": (8, 72),
    "height": (8, 72),
    "num_images": (1, 8),
    "prompt": ("x", "x" * 2_000),
    "negative_prompt": ("", "x" * 2_000),
}
OUTSIDE = {
    "seed": (-1, 4_294_967_296),
    "num_inference_steps": (0, 151),
    "guidance_scale": (-0.5, 30.5, float("inf"), float("nan")),
    "width": (0, 12),
    "height": (0, 12),
    "num_images": (0, 9),
    "prompt": ("", "x" * 2_001),
    "negative_prompt": ("x" * 2_001,),
}


def cases(table: dict[str, tuple[Any, ...]]) -> list[Any]:
    return [
        pytest.param(name, value, id=f"{name}-{place}") for name in table for place, value in enumerate(table[name])
    ]


@pytest.mark.parametrize(("field", "value"), cases(INSIDE))
def test_what_may_be_asked_can_be_stored(field: str, value: Any) -> None:
    assert getattr(GenerationBody(model="tiny", **{"prompt": "x", field: value}), field) == value
    stored = GenerationPayload.model_validate(PAYLOAD.model_dump() | {field: value})
    assert getattr(stored, field) == value


@pytest.mark.parametrize(("field", "value"), cases(OUTSIDE))
def test_what_may_not_be_asked_cannot_be_stored(field: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=field):
        GenerationBody(model="tiny", **{"prompt": "x", field: value})
    with pytest.raises(ValidationError, match=field):
        GenerationPayload.model_validate(PAYLOAD.model_dump() | {field: value})
