"""Inter-layer distillation: the outputs of the denoiser's stages, student against teacher on the same input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

_FLOOR = 1e-6


def stages_of(denoiser: nn.Module) -> list[str]:
    """The names of a UNet's down, up and middle blocks."""
    names = [name for name, _ in denoiser.named_modules()]
    return [
        n for n in names if n == "mid_block" or (n.count(".") == 1 and n.startswith(("down_blocks.", "up_blocks.")))
    ]


class Features:
    """Remembers the stages' outputs of the last call."""

    def __init__(self, denoiser: nn.Module) -> None:
        self.found: dict[str, Tensor] = {}
        self._handles = [
            denoiser.get_submodule(name).register_forward_hook(self._note(name)) for name in stages_of(denoiser)
        ]

    def _note(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def note(_: nn.Module, __: Any, output: Any) -> None:
            self.found[name] = output[0] if isinstance(output, tuple) else output

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
