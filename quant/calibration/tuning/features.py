"""Inter-layer distillation: the outputs of the denoiser's stages, student against teacher on the same input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from quant.discovery import anatomy_of
from quant.errors import RecipeMismatch

_FLOOR = 1e-6


def stages_of(denoiser: nn.Module) -> tuple[str, ...]:
    """The names of the modules whose outputs are compared. Raises RecipeMismatch where none is known."""
    found = anatomy_of(denoiser).stages(denoiser)
    if not found:
        raise RecipeMismatch(
            f"no stages of {type(denoiser).__name__} are known: fine-tune it without feature_weight and freezing"
        )
    return found


class Features:
    """Remembers the stages' outputs of the last call."""

    def __init__(self, denoiser: nn.Module) -> None:
        self.found: dict[str, Tensor] = {}
        self._anatomy = anatomy_of(denoiser)
        self._handles = [
            denoiser.get_submodule(name).register_forward_hook(self._note(name)) for name in stages_of(denoiser)
        ]

    def _note(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def note(_: nn.Module, __: Any, output: Any) -> None:
            self.found[name] = self._anatomy.stage_output(output)

        return note

    def close(self) -> None:
        """Stops remembering."""
        for handle in self._handles:
            handle.remove()
        self.found.clear()


def feature_errors(student: Features, teacher: Features) -> dict[str, Tensor]:
    """By stage, ||f_q - f||^2 / (||f||^2 + 1e-6)."""
    errors = {}
    for name, own in student.found.items():
        target = teacher.found[name].float()
        errors[name] = (own.float() - target).pow(2).sum() / (target.pow(2).sum() + _FLOOR)
    return errors


def mean_error(errors: dict[str, Tensor]) -> Tensor:
    """The loss of inter-layer distillation."""
    return torch.stack(list(errors.values())).mean()
