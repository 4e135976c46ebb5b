"""Ranges of activations: watching what goes into the student's quantizers, and setting them from what was seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from torch import Tensor, nn

from quant.errors import RecipeMismatch
from quant.layers.trainable.input import InputQuantizer
from quant.observers.ema import EmaObserver
from quant.observers.minmax import MinMaxObserver
from quant.observers.mse import MseObserver


class Observer(Protocol):
    """Something that has seen values; see quant/observers."""

    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...
    def observe(self, x: Tensor) -> None: ...


Observers = dict[str, dict[int, Observer]]
"""By quantizer, by group of timesteps."""


_NEW: dict[str, Callable[[int, int], Observer]] = {
    "minmax": lambda bits, seed: MinMaxObserver(),
    "ema": lambda bits, seed: EmaObserver(),
    "mse": lambda bits, seed: MseObserver(bits, seed=seed),
}
"""How an observer is made for so many bits, by its file's name; those that draw at random take a seed."""


@contextmanager
def watch(quantizers: dict[str, InputQuantizer], kind: str) -> Iterator[Observers]:
    """Observes what goes into the quantizers while the context is open, each sample by the group of its timestep."""
    observers: Observers = {name: {} for name in quantizers}

    def before(name: str, quantizer: InputQuantizer) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def observe(_: nn.Module, arguments: tuple[Any, ...]) -> None:
            x: Tensor = arguments[0]
            rows = quantizer.groups.rows(x.shape[0])
            for group in rows.unique().tolist():
                if group not in observers[name]:
                    bits = int(quantizer.bits[group])
                    observers[name][group] = _NEW[kind](min(bits, 8), group)
                same = rows == group
                observers[name][group].observe(x if bool(same.all()) else x[same])

        return observe

    handles = [quantizer.register_forward_pre_hook(before(name, quantizer)) for name, quantizer in quantizers.items()]
    try:
        yield observers
    finally:
        for handle in handles:
            handle.remove()


def settle(quantizers: dict[str, InputQuantizer], observers: Observers, groups: list[int]) -> None:
    """Sets the ranges of `groups` to what was observed. Raises RecipeMismatch where nothing was."""
    for name, quantizer in quantizers.items():
        for group in groups:
            seen = observers[name].get(group)
            if seen is None or seen.low > seen.high:
                raise RecipeMismatch(f"layer {name} never ran while its range was observed (timestep group {group})")
            quantizer.set_range(group, seen.low, seen.high)
