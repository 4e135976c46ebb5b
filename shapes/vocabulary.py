"""What every attribute of a scene can be, and scenes as class indices: targets of the judge and the text encoder."""

from __future__ import annotations

from enum import StrEnum

import torch
from torch import Tensor

from shapes.scene import Arrangement, Colour, Floor, Material, Scene, Shape, Size

SLOTS = 3
"""The most objects that a scene holds."""

THING_ATTRIBUTES: dict[str, type[StrEnum]] = {"shape": Shape, "colour": Colour, "material": Material, "size": Size}
SCENE_ATTRIBUTES: dict[str, type[StrEnum]] = {"arrangement": Arrangement, "floor": Floor}
ATTRIBUTES = (*SCENE_ATTRIBUTES, *THING_ATTRIBUTES)

HEAD_WORDS: dict[str, list[str]] = {name: [*map(str, words)] for name, words in SCENE_ATTRIBUTES.items()} | {
    f"{name}.{slot}": [*map(str, words)] for slot in range(SLOTS) for name, words in THING_ATTRIBUTES.items()
}
"""Classifier heads: name -> its words; `shape.1` is the shape of the object in slot 1."""

ABSENT = -100
"""The target of a slot that the scene leaves empty (ignored by cross entropy)."""


def targets(scenes: list[Scene]) -> Tensor:
    """Class indices of `scenes`, int64 [N, heads] in the order of `HEAD_WORDS`, `ABSENT` for empty slots."""
    return torch.tensor([[_target(scene, head) for head in HEAD_WORDS] for scene in scenes])


def attributes(scene: Scene) -> dict[str, str]:
    """The words of `scene` by head, without the heads of empty slots."""
    classes = targets([scene])[0].tolist()
    return {head: words[i] for i, (head, words) in zip(classes, HEAD_WORDS.items(), strict=True) if i != ABSENT}


def _target(scene: Scene, head: str) -> int:
    name, _, slot = head.partition(".")
    if not slot:
        return [*SCENE_ATTRIBUTES[name]].index(getattr(scene, name))
    if int(slot) >= len(scene.things):
        return ABSENT
    return [*THING_ATTRIBUTES[name]].index(getattr(scene.things[int(slot)], name))
