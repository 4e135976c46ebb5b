"""A stage of a calibration: what it needs, what it costs, what it does."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cache
from typing import Any, Generic, TypeVar

from contract.stages import ORDER, Option
from quant.calibration.bench import Bench
from quant.calibration.probe import Probe
from quant.calibration.trajectories import Drawn

O = TypeVar("O", bound=Option)  # noqa: E741


class Stage(Generic[O]):
    """Follows options of one kind. As it is: asks for nothing and does nothing, as options do that leave everything as
    the stages before made it."""

    def check(self, options: O, bench: Bench) -> None:
        """Before anything is done: raises RecipeMismatch for what this model or the other stages make impossible."""

    def memory(self, options: O, probe: Probe) -> int:
        """The most bytes that it holds while it works, beside the student and the trajectories."""
        return 0

    def seconds(self, options: O, probe: Probe) -> float:
        """About how long it takes: passes through the denoiser, which are nearly all of it."""
        return 0.0

    def apply(self, options: O, bench: Bench, drawn: Drawn) -> None:
        """Shapes the student, in place, as the options say."""


class Kinds(Stage[Option]):
    """A stage with options of several kinds, each followed by a stage of its own."""

    def __init__(self, kinds: Mapping[type[Option], Stage[Any]]) -> None:
        self._kinds = kinds

    def check(self, options: Option, bench: Bench) -> None:
        self._kinds[type(options)].check(options, bench)

    def memory(self, options: Option, probe: Probe) -> int:
        return self._kinds[type(options)].memory(options, probe)

    def seconds(self, options: Option, probe: Probe) -> float:
        return self._kinds[type(options)].seconds(options, probe)

    def apply(self, options: Option, bench: Bench, drawn: Drawn) -> None:
        self._kinds[type(options)].apply(options, bench, drawn)


@cache
def stages() -> dict[str, Stage[Any]]:
    """All stages by name, in the order in which they run: `quant/calibration/stages/<name>.py` has STAGE."""
    return {name: importlib.import_module(f"quant.calibration.stages.{name}").STAGE for name in ORDER}
