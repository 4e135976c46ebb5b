"""What is wrong with something that people wrote is said in our words."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from contract.catalogue import ModelDescription
from contract.faults import faults
from contract.patterns import MEANINGS
from contract.payloads import Payload
from contract.recipe import Recipe
from contract.settings import SharedSettings


@pytest.mark.parametrize("kind", [Payload, Recipe, ModelDescription, SharedSettings])
def test_every_pattern_has_a_meaning(kind: Any) -> None:
    text = json.dumps(TypeAdapter(kind).json_schema())
    patterns = {json.loads(f'"{found}"') for found in re.findall(r'"pattern": "((?:[^"\\]|\\.)*)"', text)}
    patterns |= {name for found in _objects(json.loads(text)) for name in found.get("patternProperties", {})}
    assert patterns <= set(MEANINGS)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"method": "MINMAX"}, "method: a name has 1 to 32 lower-case letters, digits and underscores"),
        ({}, "method: is missing"),
        ({"method": "minmax", "bits": 4}, "bits: there is no such field"),
        ({"method": "minmax", "weight_bits": 1}, "weight_bits: must be at least 2"),
        ({"method": "minmax", "weight_bits": "x"}, "weight_bits: must be a whole number"),
        ({"method": "minmax", "packed": 7}, "packed: must be true or false"),
        ({"method": "minmax", "keep_float": 7}, "keep_float: must be a list"),
        ({"method": "minmax", "keep_float": [""]}, "keep_float.0: must have at least 1 characters"),
        ({"method": "minmax", "keep_float": ["a b"]}, "keep_float.0: must be a layer's name"),
        ({"method": "minmax", "calibration": 7}, "calibration: must be an object with named fields"),
        ({"method": "minmax", "calibration": {"guidance_scale": "inf"}}, "guidance_scale: must be a finite number"),
        ({"method": "minmax", "softmax_bits": 9}, "softmax_bits: must be 2, 3, 4, 5, 6, 7, 8 or 16"),
        ({"method": "minmax", "stages": {"rounding": {"kind": "magic"}}}, "must be of one of these kinds: 'nearest'"),
        ({"method": "minmax", "stages": {"rounding": {}}}, "stages.rounding: says no kind"),
    ],
)
def test_a_fault_is_said_in_our_words(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Recipe.model_validate(fields)
    text = faults(caught.value)
    assert said in text
    assert "magic" not in text


def test_what_is_not_foreseen_is_said_without_its_kind() -> None:
    class Folder(BaseModel):
        size: bytes

    with pytest.raises(ValidationError) as caught:
        Folder.model_validate({"size": 7})
    assert faults(caught.value) == "size: must be a valid bytes"


def _objects(tree: Any) -> list[dict[str, Any]]:
    found = [tree] if isinstance(tree, dict) else []
    parts = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    return found + [each for part in parts for each in _objects(part)]
