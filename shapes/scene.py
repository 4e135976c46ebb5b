"""A scene: one to three solids on a floor, described by words, drawn from a seed, assigned to one split."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from enum import StrEnum


class Shape(StrEnum):
    SPHERE = "sphere"
    CUBE = "cube"
    CYLINDER = "cylinder"
    CONE = "cone"
    TORUS = "torus"


class Colour(StrEnum):
    RED = "red"
    YELLOW = "yellow"
    GREEN = "green"
    CYAN = "cyan"
    BLUE = "blue"
    PURPLE = "purple"


class Material(StrEnum):
    MATTE = "matte"
    METAL = "metal"


class Size(StrEnum):
    SMALL = "small"
    LARGE = "large"


class Floor(StrEnum):
    LIGHT = "light"
    DARK = "dark"


class Arrangement(StrEnum):
    """Where the objects are. One object: left, centre, right. Two: beside (slots go left to right) or behind
    (slot 0 is the far one). Three: row (slots go left to right)."""

    LEFT = "left"
    CENTRE = "centre"
    RIGHT = "right"
    BESIDE = "beside"
    BEHIND = "behind"
    ROW = "row"

    @property
    def object_count(self) -> int:
        """How many objects such a scene holds, 1 to 3."""
        return {Arrangement.BESIDE: 2, Arrangement.BEHIND: 2, Arrangement.ROW: 3}.get(self, 1)


class Split(StrEnum):
    TRAIN = "train"
    CALIBRATION = "calibration"
    VALIDATION = "validation"
    TEST = "test"


@dataclass(frozen=True, order=True)
class Thing:
    """One object of a scene, by its words."""

    shape: Shape
    colour: Colour
    material: Material
    size: Size


@dataclass(frozen=True)
class Scene:
    """What a picture shows. `things` are in slot order (see `Arrangement`); `seed` fixes everything no word names
    (exact position, turn, light)."""

    things: tuple[Thing, ...]
    arrangement: Arrangement
    floor: Floor
    seed: int

    @property
    def composition(self) -> str:
        """The words whose combination decides the split: for one object all of its words, its place and the floor;
        for several the set of objects, whatever their order, place and floor."""
        things = sorted(f"{t.size} {t.colour} {t.material} {t.shape}" for t in self.things)
        if len(things) == 1:
            things += [self.arrangement, self.floor]
        return " + ".join(things)

    @property
    def split(self) -> Split:
        """The one split that this composition belongs to: 76 % train, 6 % calibration, 6 % validation, 12 % test."""
        bucket = int.from_bytes(hashlib.sha256(self.composition.encode()).digest()[:4], "big") % 100
        if bucket < 12:
            return Split.TEST
        if bucket < 18:
            return Split.VALIDATION
        return Split.CALIBRATION if bucket < 24 else Split.TRAIN


_ARRANGEMENTS = [*Arrangement]
_ARRANGEMENT_ODDS = [1 / 6, 1 / 6, 1 / 6, 0.27, 0.19, 0.04]


def draw_scene(rng: random.Random, split: Split) -> Scene:
    """A random scene of `split`: half of them one object, 46 % two, 4 % three.

    The same generator state gives the same scene."""
    while True:
        arrangement = rng.choices(_ARRANGEMENTS, _ARRANGEMENT_ODDS)[0]
        sizes = [Size.SMALL] if arrangement is Arrangement.ROW else [*Size]
        things = tuple(
            Thing(rng.choice([*Shape]), rng.choice([*Colour]), rng.choice([*Material]), rng.choice(sizes))
            for _ in range(arrangement.object_count)
        )
        scene = Scene(things, arrangement, rng.choice([*Floor]), rng.getrandbits(32))
        if scene.split is split and len(set(things)) == len(things):
            return scene


def draw_scenes(count: int, split: Split, seed: int) -> list[Scene]:
    """`count` scenes of one split; scene i is the same whatever `count` is."""
    rng = random.Random(f"{split}:{seed}")
    return [draw_scene(rng, split) for _ in range(count)]
