"""One arm's pictures of one batch, measured: all that is kept of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from quant.fidelity.backbone import Backbones
from quant.fidelity.metric import Metric
from quant.fidelity.metrics.trajectory import distances
from quant.fidelity.pair import Pair
from quant.sampling.generation import Drawn
from quant.sampling.prompts import Prompt

_SCORE, _FEATURES = "score.", "features."


@dataclass(frozen=True)
class Measurement:
    """N pictures: a score per metric float32 [N] (NaN: not defined; infinity: identical), the distance to the reference
    after every step float32 [N, steps] ([N, 0] where nobody asked for it), features float32 [N, D] per backbone, and
    whether it is a picture, and the reference's one too, bool [N]. What is not valid has NaN for scores."""

    scores: dict[str, Tensor]
    trajectory: Tensor
    features: dict[str, Tensor]
    valid: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """As named tensors, to be stored."""
        return (
            {"trajectory": self.trajectory, "valid": self.valid}
            | {_SCORE + name: score for name, score in self.scores.items()}
            | {_FEATURES + name: features for name, features in self.features.items()}
        )

    @staticmethod
    def of_tensors(tensors: dict[str, Tensor]) -> Measurement:
        """From what `tensors` gave."""
        return Measurement(
            {name.removeprefix(_SCORE): tensor for name, tensor in tensors.items() if name.startswith(_SCORE)},
            tensors["trajectory"],
            {name.removeprefix(_FEATURES): tensor for name, tensor in tensors.items() if name.startswith(_FEATURES)},
            tensors["valid"],
        )

    @staticmethod
    def joined(parts: list[Measurement]) -> Measurement:
        """The pictures of several batches as one."""
        stored = [part.tensors() for part in parts]
        return Measurement.of_tensors({name: torch.cat([each[name] for each in stored]) for name in stored[0]})


def measure(
    reference: Drawn,
    drawn: Drawn,
    prompts: list[Prompt],
    metrics: tuple[Metric, ...],
    backbones: Backbones,
    *,
    curves: bool = True,
) -> Measurement:
    """The pictures `drawn` against the reference's; `curves` asks for the latents after every step, too. Raises
    PictureMismatch for different sizes and counts, and, with `curves`, for trajectories of different lengths."""
    faults = zip(reference.faults, drawn.faults, strict=True)
    valid = torch.tensor([first is None and second is None for first, second in faults])
    pair = Pair(_blanked(reference, valid), _blanked(drawn, valid), prompts, backbones)
    scores = {m.key: m.module.score(pair, m.backbone).float() for m in metrics if not m.of_sets}
    return Measurement(
        scores={key: score.masked_fill(~valid, torch.nan) for key, score in scores.items()},
        trajectory=_curves(pair, valid) if curves else torch.empty(len(valid), 0),
        features={name: pair.features(name)[1].float() for name in sorted({m.backbone for m in metrics if m.of_sets})},
        valid=valid,
    )


def _curves(pair: Pair, valid: Tensor) -> Tensor:
    return distances(pair).float().masked_fill(~valid[:, None], torch.nan)


def _blanked(drawn: Drawn, valid: Tensor) -> Drawn:
    """Grey in place of what is no picture, so that it cannot spread to others of its batch."""
    if bool(valid.all()):
        return drawn
    trajectory, values = drawn.trajectory.clone(), drawn.values.clone()
    trajectory[~valid], values[~valid] = 1.0, 0.5
    return Drawn(trajectory, values, drawn.seconds)
