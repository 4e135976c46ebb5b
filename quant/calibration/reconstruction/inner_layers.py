"""The layers inside a unit, whose errors fine-grained reconstruction adds to the unit's own."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from quant.calibration.reconstruction.objective import error
from quant.calibration.reconstruction.units import Arguments, Unit, call_unit


class InnerLayers:
    """Outputs of a unit's layers but the last in module order, of the last call of unit and reference each; a context
    (FBR, arXiv 2401.04585)."""

    def __init__(self, unit: Unit, reference: nn.Module) -> None:
        self._reference = reference
        self._targets: dict[str, Tensor] = {}
        self._outputs: dict[str, Tensor] = {}
        self._stack = ExitStack()
        for name in list(unit.layers)[:-1]:
            for module, found in ((unit.module, self._outputs), (reference, self._targets)):
                handle = module.get_submodule(name).register_forward_hook(self._note(found, name))
                self._stack.callback(handle.remove)

    @staticmethod
    def _note(found: dict[str, Tensor], name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def note(_: nn.Module, __: Any, output: Tensor) -> None:
            found[name] = output

        return note

    @torch.no_grad()
    def run_reference(self, arguments: Arguments) -> None:
        """Calls the reference, for its layers' outputs."""
        call_unit(self._reference, arguments)

    def errors(self) -> Tensor:
        """The sum of the layers' errors. Targets are the reference's, on the reference's input."""
        return torch.stack([error(self._outputs[n], self._targets[n].float()) for n in self._targets]).sum()

    def __enter__(self) -> InnerLayers:
        return self

    def __exit__(self, *_: Any) -> None:
        self._stack.close()
