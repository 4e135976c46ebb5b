"""A file's name is its registration: methods, families and metrics are found by listing their folder."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

import quant.families
from quant.errors import ModelError, RecipeMismatch


def names(package: ModuleType) -> tuple[str, ...]:
    """The names that a folder offers, sorted."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(package.__path__)))


def find(package: ModuleType, name: str) -> ModuleType:
    """The module of that name. Raises RecipeMismatch, listing what there is."""
    if name not in names(package):
        kind = package.__name__.rpartition(".")[2]
        raise RecipeMismatch(f"{name!r} is not one of the {kind}: {', '.join(names(package))}")
    return importlib.import_module(f"{package.__name__}.{name}")


def family_of(pipeline: object) -> ModuleType:
    """The family whose pipeline class this is. Raises ModelError for a class that no family has."""
    for name in names(quant.families):
        family = find(quant.families, name)
        if type(pipeline) is family.PIPELINE:
            return family
    raise ModelError(f"{type(pipeline).__name__} belongs to no family; there are {', '.join(names(quant.families))}")
