"""Recipes by name: presets that came with the code, and TOML files."""

from __future__ import annotations

from pathlib import Path

from contract.errors import RecipeError
from contract.places import shipped
from contract.recipe import Recipe, read_recipe


def preset_names() -> tuple[str, ...]:
    """The names of the presets, sorted."""
    return tuple(sorted(path.stem for path in shipped("recipes").glob("*.toml")))


def recipe_named(name: str) -> Recipe:
    """The preset of that name, or the recipe in the TOML file of that path. Raises RecipeError for a name that is
    neither, listing the presets, and for a recipe that makes no sense."""
    if name.endswith(".toml"):
        return read_recipe(Path(name))
    if name not in preset_names():
        raise RecipeError(f"preset {name!r} is not there; there are {', '.join(preset_names())}; or give a TOML file")
    return read_recipe(shipped("recipes") / f"{name}.toml")
