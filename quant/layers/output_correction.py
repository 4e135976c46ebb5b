"""A quantized denoiser's output brought nearer to the float model's: its error's correlated part and mean taken out.

PTQD (arXiv 2305.10657) splits the error of a step into a part in proportion to the output itself and a residual: what
quantization adds is `slope` times the float output plus noise whose mean is `bias`. Both are known after calibration,
and undoing them costs one multiplication per element. What the residual adds in variance is left to the sampler."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from quant.errors import CheckpointError
from quant.layers.calls import Clock, bound, timestep
from quant.layers.moved import Moved
from quant.layers.timesteps import TimestepGroups


class OutputCorrection(Moved):
    """eps' = (eps - bias_t) / (1 + slope_t), t being the step whose timestep is nearest.

    Buffers, which are also the checkpoint's tensors: `slope` float32 [T], `bias` float32 [T, C]. As made, it corrects
    nothing."""

    slope: Tensor
    bias: Tensor

    def __init__(self, timesteps: Sequence[float], channels: int) -> None:
        """Raises TimestepError for timesteps that are not different, finite and not negative."""
        super().__init__()
        self.timesteps = TimestepGroups(timesteps)
        self.register_buffer("slope", torch.zeros(len(self.timesteps)))
        self.register_buffer("bias", torch.zeros(len(self.timesteps), channels))
        self._hook: RemovableHandle | None = None
        self._clock: Clock = timestep

    @classmethod
    def of(cls, fits: dict[float, tuple[float, Tensor]]) -> OutputCorrection:
        """From what `fit_correction` found, by timestep. Raises CheckpointError where that is not finite."""
        slopes, biases = zip(*fits.values(), strict=True)
        correction = cls(tuple(fits), len(biases[0]))
        correction.slope = torch.tensor(slopes, dtype=torch.float32, device=biases[0].device)
        correction.bias = torch.stack(biases).float()
        correction.check()
        return correction

    def forward(self, eps: Tensor, time: Tensor | float) -> Tensor:
        """[N, C, ...] to the same, in its dtype; the timesteps may differ from picture to picture.

        Raises TimestepError for a timestep that is not a number from 0 on."""
        values = time.flatten().tolist() if isinstance(time, Tensor) else [time]
        rows = torch.tensor([self.timesteps.nearest(float(value)) for value in values], device=eps.device)
        slope = self.slope[rows].view(-1, *[1] * (eps.ndim - 1))
        bias = self.bias[rows].view(len(rows), -1, *[1] * (eps.ndim - 2))
        return ((eps.float() - bias) / (1.0 + slope)).to(eps.dtype)

    def check(self) -> None:
        """Raises CheckpointError where slope or bias makes no sense."""
        if self.slope.shape != (len(self.timesteps),) or len(self.bias) != len(self.timesteps):
            raise CheckpointError(f"slope and bias must have {len(self.timesteps)} rows, one per timestep")
        if not bool((self.slope.isfinite() & (self.slope >= 0.0)).all()):
            raise CheckpointError("slope must be finite and not negative")
        if not bool(self.bias.isfinite().all()):
            raise CheckpointError("bias must be finite")

    def follow(self, denoiser: nn.Module, clock: Clock = timestep) -> None:
        """Corrects what every call of `denoiser` gives; once, however often it is told to."""
        self._clock = clock
        if self._hook is None:
            # A bound method: a copy of the denoiser then has a hook on the copy of this module.
            self._hook = denoiser.register_forward_hook(self._after, with_kwargs=True)

    def leave(self) -> None:
        """Corrects no longer."""
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def extra_repr(self) -> str:
        return f"timesteps={len(self.slope)}, channels={self.bias.shape[1]}"

    def _after(self, denoiser: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        time = self._clock(bound(denoiser, args, kwargs))
        if isinstance(output, Tensor):
            return self(output, time)
        if isinstance(output, tuple):
            return (self(output[0], time), *output[1:])
        return dataclasses.replace(output, sample=self(output.sample, time))


def fit_correction(reference: Tensor, quantized: Tensor) -> tuple[float, Tensor]:
    """Slope and bias, float32 [C], of the error of one step's outputs [N, C, ...] against the float model's.

    The least-squares fit of `quantized - reference` by `slope * reference + bias_c`, the slope not below 0; then the
    bias is the mean of what is left of a channel. In float64. Raises ValueError for tensors of different shapes."""
    if reference.shape != quantized.shape or reference.ndim < 3:
        raise ValueError(f"outputs of shapes {tuple(reference.shape)} and {tuple(quantized.shape)} cannot be compared")
    output, error = reference.double(), quantized.double() - reference.double()
    pixels = (0, *range(2, reference.ndim))
    # Means of channels are the bias's part: with them the slope would be drawn towards a channel that is far from zero.
    centred = output - output.mean(pixels, keepdim=True)
    variance = centred.square().sum().item()
    slope = max((centred * error).sum().item() / variance, 0.0) if variance > 0.0 else 0.0
    return slope, (error - slope * output).mean(pixels).float()


def attach(denoiser: nn.Module, correction: OutputCorrection) -> None:
    """Registers a correction as the submodule `output_correction` and has it follow, in place of an earlier one.

    Raises CheckpointError where its values make no sense."""
    correction.check()
    detach(denoiser)
    denoiser.output_correction = correction
    correction.follow(denoiser)


def detach(denoiser: nn.Module) -> None:
    """Takes the correction, if there is one, off the denoiser."""
    present = correction_of(denoiser)
    if present is not None:
        present.leave()
        del denoiser.output_correction


def correction_of(denoiser: nn.Module) -> OutputCorrection | None:
    """The correction of a denoiser, if it has one."""
    present = getattr(denoiser, "output_correction", None)
    return present if isinstance(present, OutputCorrection) else None
