"""Our format in diffusers' tables of quantization backends, without importing diffusers.

diffusers has no registration call: a backend is one entry in each of two dictionaries of `diffusers.quantizers.auto`.
Our entries are made when that module has been imported. They are stand-ins, which import the backend when diffusers
first asks them for something; the backend then puts its own classes in their place."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

TABLES = "diffusers.quantizers.auto"
FORMAT = "facsimile"
"""Our name in `quantization_config.quant_method`."""


class ConfigStandIn:
    """Stands for FacsimileConfig."""

    @classmethod
    def from_dict(cls, fields: dict[str, Any], **kwargs: Any) -> Any:
        """A FacsimileConfig of these fields. Raises RecipeMismatch for a field that there is not."""
        from quant.checkpoints.backend import FacsimileConfig

        return FacsimileConfig.from_dict(fields, **kwargs)


class QuantizerStandIn:
    """Stands for FacsimileQuantizer, and makes one."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """A FacsimileQuantizer."""
        from quant.checkpoints.backend import FacsimileQuantizer

        return FacsimileQuantizer(*args, **kwargs)


class _AfterImport(MetaPathFinder):
    """Makes the entries as soon as the module with the tables has been executed."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The spec that the other finders have, with our entries made at the end of its execution."""
        if name != TABLES:
            return None
        found = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not self)
        spec = next((each for each in found if each is not None), None)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            _enter(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def register() -> None:
    """Makes our entries: now, where diffusers' tables have been imported, or as soon as they are."""
    if TABLES in sys.modules:
        _enter(sys.modules[TABLES])
    elif not any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport())


def _enter(tables: ModuleType) -> None:
    tables.AUTO_QUANTIZER_MAPPING.setdefault(FORMAT, QuantizerStandIn)
    tables.AUTO_QUANTIZATION_CONFIG_MAPPING.setdefault(FORMAT, ConfigStandIn)
