"""A file's name is its registration: methods, families, anatomies and metrics are found by listing their folder."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from types import ModuleType

from torch import nn

import quant.anatomies
import quant.families
from quant.anatomies import Anatomy
from quant.errors import ModelError, RecipeMismatch
from quant.families import Family


def names(package: ModuleType) -> tuple[str, ...]:
    """The names that a folder offers, sorted; files whose names begin with `_` are what others of it share."""
    found = (module.name for module in pkgutil.iter_modules(package.__path__))
    return tuple(sorted(name for name in found if not name.startswith("_")))


def find(package: ModuleType, name: str) -> ModuleType:
    """The module of that name. Raises RecipeMismatch, listing what there is."""
    if name not in names(package):
        kind = package.__name__.rpartition(".")[2]
        raise RecipeMismatch(f"{name!r} is not one of the {kind}: {', '.join(names(package))}")
    return importlib.import_module(f"{package.__name__}.{name}")


@cache
def families() -> dict[str, Family]:
    """All families by name."""
    return {name: find(quant.families, name).FAMILY for name in names(quant.families)}


def family_named(name: str) -> Family:
    """The family of that name. Raises ModelError, listing what there is."""
    if name not in families():
        raise ModelError(f"{name!r} is no family; there are {', '.join(families())}")
    return families()[name]


def family_name(pipeline: object) -> str:
    """The name of the family that has this pipeline's class. Raises ModelError for a class that no family has."""
    for name, family in families().items():
        if type(pipeline) in family.pipelines:
            return name
    raise ModelError(f"{type(pipeline).__name__} belongs to no family; there are {', '.join(families())}")


def family_of(pipeline: object) -> Family:
    """The family that has this pipeline's class. Raises what `family_name` raises."""
    return families()[family_name(pipeline)]


@cache
def _anatomies() -> dict[type[nn.Module], Anatomy]:
    found = [find(quant.anatomies, name).ANATOMY for name in names(quant.anatomies)]
    return {kind: anatomy for anatomy in found for kind in anatomy.denoisers}


def anatomy_of(denoiser: nn.Module) -> Anatomy:
    """How this denoiser is built; of a class that no file knows, what is known of any."""
    return next((_anatomies()[kind] for kind in type(denoiser).__mro__ if kind in _anatomies()), Anatomy())
