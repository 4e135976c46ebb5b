"""Captions of a scene in two styles: `plain` words, and `ornate` synonyms with decoration."""

from __future__ import annotations

import random
from enum import StrEnum

from shapes.scene import Arrangement, Colour, Floor, Material, Scene, Shape, Size, Thing


class Style(StrEnum):
    PLAIN = "plain"
    ORNATE = "ornate"


_PLAIN: dict[str, list[str]] = {
    Shape.SPHERE: ["sphere", "ball"],
    Shape.CUBE: ["cube"],
    Shape.CYLINDER: ["cylinder"],
    Shape.CONE: ["cone"],
    Shape.TORUS: ["torus", "ring"],
    **{word: [word] for group in (Colour, Material, Size, Floor) for word in group},
}
_ORNATE: dict[str, list[str]] = {
    Shape.SPHERE: ["orb", "globe", "sphere"],
    Shape.CUBE: ["box", "block", "cube"],
    Shape.CYLINDER: ["drum", "pillar", "cylinder"],
    Shape.CONE: ["spike", "party hat", "cone"],
    Shape.TORUS: ["donut", "hoop", "torus"],
    Colour.RED: ["crimson", "scarlet"],
    Colour.YELLOW: ["golden", "lemon"],
    Colour.GREEN: ["emerald", "lime"],
    Colour.CYAN: ["turquoise", "teal"],
    Colour.BLUE: ["azure", "sapphire"],
    Colour.PURPLE: ["violet", "magenta"],
    Material.MATTE: ["clay", "dull", "rubber"],
    Material.METAL: ["glossy", "polished", "chrome"],
    Size.SMALL: ["tiny", "little"],
    Size.LARGE: ["huge", "giant"],
    Floor.LIGHT: ["bright", "pale"],
    Floor.DARK: ["black", "shadowy"],
}
_DECORATION = ["studio lighting", "highly detailed", "3d render", "soft shadows", "product photo", "trending"]


def _article(phrase: str) -> str:
    return f"an {phrase}" if phrase[0] in "aeiou" else f"a {phrase}"


def _thing(thing: Thing, words: dict[str, list[str]], rng: random.Random) -> str:
    order = (thing.size, thing.colour, thing.material, thing.shape)
    return _article(" ".join(rng.choice(words[word]) for word in order))


def _plain(scene: Scene, things: list[str], floor: str, rng: random.Random) -> str:
    match scene.arrangement:
        case Arrangement.BESIDE:
            body = rng.choice([f"{things[0]} left of {things[1]}", f"{things[1]} right of {things[0]}"])
        case Arrangement.BEHIND:
            body = rng.choice([f"{things[0]} behind {things[1]}", f"{things[1]} in front of {things[0]}"])
        case Arrangement.ROW:
            body = f"a row of {things[0]}, {things[1]} and {things[2]}"
        case Arrangement.CENTRE:
            body = f"{things[0]} in the centre"
        case side:
            body = f"{things[0]} on the {side}"
    return rng.choice([f"{body}, {floor} floor", f"{body} on a {floor} floor"])


def _ornate(scene: Scene, things: list[str], floor: str, rng: random.Random) -> str:
    match scene.arrangement:
        case Arrangement.BESIDE:
            body = rng.choice(
                [f"{things[0]} standing to the left of {things[1]}", f"{things[1]} to the right hand of {things[0]}"]
            )
        case Arrangement.BEHIND:
            body = rng.choice(
                [f"{things[1]} hiding {things[0]} in the back", f"{things[0]} at the back of {things[1]}"]
            )
        case Arrangement.ROW:
            body = f"from left to right {things[0]}, {things[1]}, {things[2]}"
        case Arrangement.CENTRE:
            body = rng.choice([f"{things[0]} in the middle", f"centred {things[0][things[0].index(' ') + 1 :]}"])
        case side:
            body = rng.choice([f"{things[0]} at the {side} edge", f"{side} side {things[0]}"])
    decoration = rng.sample(_DECORATION, rng.randint(0, 2))
    return ", ".join([body, f"{floor} ground", *decoration])


def caption(scene: Scene, style: Style, rng: random.Random) -> str:
    """One caption of `scene`; every attribute of the scene is named in it, the wording is drawn from `rng`."""
    words = _PLAIN if style is Style.PLAIN else _ORNATE
    things = [_thing(thing, words, rng) for thing in scene.things]
    write = _plain if style is Style.PLAIN else _ornate
    return write(scene, things, rng.choice(words[scene.floor]), rng)
