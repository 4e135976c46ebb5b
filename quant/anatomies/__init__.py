"""Anatomies: how denoisers are built, one class of diffusers per file; where a quantizer finds its way in them.

How a pipeline is asked and drawn with is another question (`quant.families`)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from quant.errors import RecipeMismatch
from quant.layers.calls import Arguments, timestep
from quant.layers.time_path.path import TimePath

ROLES = ("input", "output", "time")
"""What recipes can call layers by, as `@input`, whatever the denoiser names them."""


class Anatomy:
    """What is known of a denoiser of any class: layers, blocks and attentions of diffusers. Of what this class leaves
    empty the denoiser has none, as far as is known, and options that need it are refused."""

    denoisers: ClassVar[tuple[type[nn.Module], ...]] = ()
    """The classes that are built so."""

    blocks: ClassVar[tuple[type[nn.Module], ...]] = (ResnetBlock2D, BasicTransformerBlock)
    """What is reconstructed as a whole: residual units, as BRECQ (arXiv 2102.05426) has them."""

    def roles(self, denoiser: nn.Module) -> dict[str, tuple[str, ...]]:
        """The patterns (fnmatch) of the layers that play a role, by ROLES; none for one that nobody plays."""
        return {}

    def layers_called(self, patterns: Iterable[str], denoiser: nn.Module) -> tuple[str, ...]:
        """Patterns with the denoiser's own in place of roles such as `@input`. Raises RecipeMismatch for a role that
        there is not."""
        roles = self.roles(denoiser)
        found: list[str] = []
        for pattern in patterns:
            if not pattern.startswith("@"):
                found.append(pattern)
            elif pattern[1:] in roles:
                found += roles[pattern[1:]]
            else:
                known = ", ".join(f"@{role}" for role in roles) or "none"
                raise RecipeMismatch(
                    f"{pattern!r} is no role of layers in {type(denoiser).__name__}; there are {known}"
                )
        return tuple(found)

    def stages(self, denoiser: nn.Module) -> tuple[str, ...]:
        """The modules whose outputs distillation compares, and whose layers are frozen together."""
        return ()

    def stage_output(self, output: Any) -> Tensor:
        """What is compared of a stage's output."""
        found: Tensor = output[0] if isinstance(output, tuple) else output
        return found

    def bottleneck(self, denoiser: nn.Module) -> str:
        """The module whose input says most of a state. Raises RecipeMismatch where there is none."""
        raise RecipeMismatch(f"tdac: no bottleneck of {type(denoiser).__name__} is known, so choose other inputs")

    def splits(self, denoiser: nn.Module) -> dict[str, int]:
        """Convolutions over two things put together, and how many of their channels are the first one's."""
        return {}

    def attentions(self, denoiser: nn.Module) -> dict[str, Attention]:
        """All attention modules by their full name."""
        return {name: module for name, module in denoiser.named_modules() if isinstance(module, Attention)}

    def time_path(self, denoiser: nn.Module) -> TimePath:
        """Where time enters. Raises RecipeMismatch where it cannot be told from the rest."""
        raise RecipeMismatch(f"the time path of {type(denoiser).__name__} is not known: keep it")

    def clock(self, arguments: Arguments) -> Tensor | float:
        """The scheduler's time of a call."""
        return timestep(arguments)

    def channels(self, denoiser: nn.Module) -> int:
        """How many channels of the output the sampler takes, along dimension 1. Raises RecipeMismatch."""
        count: Any = getattr(getattr(denoiser, "config", None), "out_channels", None)
        if count is None:
            raise RecipeMismatch(f"{type(denoiser).__name__} does not say how many channels its output has")
        return int(count)
