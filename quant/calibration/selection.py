"""Which steps of which trajectories a model is calibrated on.

A trajectory is one picture's way from noise to the end, a step an index into the sampler's timesteps: step 0 is pure
noise, the last one is nearest to the picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor
from torch.nn import functional

from quant.errors import QuantError, RecipeMismatch

Selection = tuple[tuple[int, int], ...]
"""(trajectory, step) pairs, indices from 0."""

_ROUNDING = 1e-10
"""Differences of diversity smaller than this share of the largest possible one are rounding."""


@dataclass(frozen=True)
class TimestepNormal:
    """A normal distribution of timesteps, in units of the training timesteps; the defaults are PTQ4DM's."""

    mean: float = 0.4
    std: float = 0.4


def uniform(trajectories: int, steps: int, selected_steps: int, per_step: int) -> Selection:
    """The first `per_step` trajectories at steps 0, q, 2q, ..., `selected_steps` of them, q = floor(steps /
    selected_steps): Q-Diffusion (arXiv 2302.04304). By step, then by trajectory.

    Raises RecipeMismatch when more steps or trajectories are asked for than there are."""
    _positive(selected_steps=selected_steps, per_step=per_step)
    _enough(selected_steps, steps, "steps")
    _enough(per_step, trajectories, "trajectories")
    interval = steps // selected_steps
    return tuple((i, k * interval) for k in range(selected_steps) for i in range(per_step))


def normal(
    trajectories: int,
    timesteps: Sequence[float],
    train_timesteps: int,
    count: int,
    generator: torch.Generator,
    distribution: TimestepNormal = TimestepNormal(),
) -> Selection:
    """`count` pairs: trajectories in turn, each at the step whose timestep is nearest (of two the first) to a draw of
    clip(Normal(mean, std) * train_timesteps, 0, train_timesteps - 1): PTQ4DM (arXiv 2211.15736). In the order of
    drawing; a pair may come more than once.

    Raises RecipeMismatch for counts below 1 and a distribution that is none."""
    _positive(trajectories=trajectories, timesteps=len(timesteps), train_timesteps=train_timesteps, count=count)
    if not (math.isfinite(distribution.mean) and 0.0 <= distribution.std < math.inf):
        raise RecipeMismatch(f"no distribution of timesteps: {distribution}")
    draws = torch.randn(count, generator=generator, device=generator.device, dtype=torch.float64).cpu()
    drawn = ((distribution.mean + distribution.std * draws) * train_timesteps).clamp(0, train_timesteps - 1)
    distance = (drawn[:, None] - torch.tensor(timesteps, dtype=torch.float64)).abs()
    return tuple((i % trajectories, step) for i, step in enumerate(distance.argmin(dim=1).tolist()))


def every_step(trajectories: int, steps: int) -> Selection:
    """All there are, by step, then by trajectory. Raises RecipeMismatch when there are none."""
    return last_steps(trajectories, steps, steps)


def last_steps(trajectories: int, steps: int, count: int) -> Selection:
    """All trajectories at the last `count` steps only, nearest to the picture: for ablations. By step, then by
    trajectory. Raises RecipeMismatch when more steps are asked for than there are, or none."""
    _positive(trajectories=trajectories, steps=steps, count=count)
    _enough(count, steps, "steps")
    return tuple((i, step) for step in range(steps - count, steps) for i in range(trajectories))


def density(features: Tensor, radius: float | None) -> Tensor:
    """TDAC's density (EDA-DM, arXiv 2401.04585): for every step the number of other steps with mean
    squared difference of features at most `radius`, int64 [T]. Without a radius it is the median of all pairs.

    `features` are floats [T, N, C, h, w]: what goes into the bottleneck's attention at every step, of one batch. Raises
    QuantError when they are of another shape or not finite, RecipeMismatch for a negative radius."""
    _check(features)
    if radius is not None and not radius >= 0.0:
        raise RecipeMismatch(f"radius {radius} of the density must not be negative")
    steps = len(features)
    distance = torch.full((steps, steps), math.nan, dtype=torch.float64)  # no step is near itself
    for k, j in combinations(range(steps), 2):  # one pair in memory: all of them would be T times the features
        distance[k, j] = distance[j, k] = (features[k].double() - features[j].double()).square().mean().item()
    if radius is None:
        rows, columns = torch.triu_indices(steps, steps, offset=1)
        radius = distance[rows, columns].quantile(0.5).item() if steps > 1 else 0.0
    return (distance <= radius).sum(dim=1)


def diversity(features: Tensor) -> Tensor:
    """TDAC's diversity (EDA-DM, arXiv 2401.04585): for every step k of `features`, [T, N, C, h, w] as for `density`,
    the sum over all other steps, batch entries and positions of 1 - cos(F_k, F_j), the cosine being that of the vectors
    of C channels, 0 where one of them is zero. Float64 [T].

    Raises QuantError as `density` does."""
    _check(features)
    total = torch.zeros(features.shape[1:], dtype=torch.float64, device=features.device)
    for step in features:
        total += _directions(step)
    products = [(unit * (total - unit)).sum() for unit in map(_directions, features)]  # the sum over j, taken inside
    return _largest_diversity(features) - torch.stack(products).cpu()


def allocation(features: Tensor, samples: int, diversity_weight: float, radius: float | None) -> list[int]:
    """How many of `samples` samples TDAC takes of every step, [T] numbers from 0 on that sum up to `samples`: in
    proportion to density + `diversity_weight` * diversity, both brought to [0, 1] over the steps (EDA-DM, arXiv
    2401.04585). A score that is the same for all steps counts for nothing; when that leaves no weight at all, steps are
    equal.

    Rounding is made good as in the authors' code: what is missing goes one each to the largest numbers, what is too
    many is taken one each from the last steps. Raises RecipeMismatch for no samples or a `diversity_weight` that is
    negative or not finite, QuantError as `density` does."""
    _positive(samples=samples)
    if not 0.0 <= diversity_weight < float("inf"):
        raise RecipeMismatch(f"diversity_weight {diversity_weight} must be finite and not negative")
    dense = _scaled(density(features, radius).double(), 0.0)
    diverse = _scaled(diversity(features), _ROUNDING * _largest_diversity(features))
    weights = dense + diversity_weight * diverse
    weights = weights if weights.any() else torch.ones_like(weights)
    numbers = (samples * (weights / weights.sum())).round().long()
    missing = samples - int(numbers.sum())
    if missing >= 0:
        numbers[numbers.argsort(descending=True, stable=True)[:missing]] += 1
    else:
        numbers[numbers.nonzero().flatten()[missing:]] -= 1
    return [int(number) for number in numbers]


def tdac(
    features: Tensor,
    trajectories: int,
    diversity_weight: float,
    radius: float | None,
    generator: torch.Generator,
) -> Selection:
    """Temporal distribution alignment (EDA-DM, arXiv 2401.04585): every trajectory once, by number, at a
    step drawn from all steps with the multiplicities of `allocation`, in random order.

    Raises RecipeMismatch when there are fewer trajectories than steps, otherwise as `allocation` does."""
    if trajectories < len(features):
        raise RecipeMismatch(
            f"TDAC takes every trajectory once: {trajectories} of them are too few for {len(features)} steps"
        )
    numbers = torch.tensor(allocation(features, trajectories, diversity_weight, radius))
    steps = torch.arange(len(numbers)).repeat_interleave(numbers)
    order = torch.randperm(trajectories, generator=generator, device=generator.device).cpu()
    return tuple(enumerate(steps[order].tolist()))


def _positive(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise RecipeMismatch(f"{name} must be at least 1, not {count}")


def _enough(asked: int, available: int, things: str) -> None:
    if asked > available:
        raise RecipeMismatch(f"{asked} {things} are asked for and there are {available}")


def _check(features: Tensor) -> None:
    if features.ndim != 5 or not features.numel():
        raise QuantError(f"features of a trajectory are [T, N, C, h, w] and not empty, not {tuple(features.shape)}")
    if not all(step.isfinite().all() for step in features):
        raise QuantError("a feature of the trajectory is not finite")


def _directions(step: Tensor) -> Tensor:
    return functional.normalize(step.double(), dim=1, eps=1e-150)  # a zero vector stays zero


def _largest_diversity(features: Tensor) -> float:
    """What diversity is where all features are at right angles."""
    steps, batch, _, height, width = features.shape
    return float((steps - 1) * batch * height * width)


def _scaled(score: Tensor, resolution: float) -> Tensor:
    low, high = score.aminmax()
    return (score - low) / (high - low) if high - low > resolution else torch.zeros_like(score)
