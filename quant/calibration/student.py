"""The fake-quantized copy of the reference: what all stages shape, and what is exported in the end."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from quant.checkpoints.layout import replace_layer
from quant.discovery import anatomy_of
from quant.layers.output_correction import OutputCorrection
from quant.layers.time_path.delta import Delta, deltas
from quant.layers.time_path.precalculated import PrecalculatedProjection, projections
from quant.layers.timesteps import SampleGroups
from quant.layers.trainable.input import InputQuantizer
from quant.layers.trainable.layer import FakeQuantizedLayer

_TABLE = "time-table/"


class Student:
    """`denoiser` has the reference's structure; `layers` are its quantized ones by name, in module order, `quantizers`
    those of their inputs by the name of the first layer that has them, and `correction` is what its output is corrected
    by once it is served."""

    def __init__(self, denoiser: nn.Module, layers: Mapping[str, FakeQuantizedLayer], *, dynamic: bool) -> None:
        """`dynamic`: scales of activations are found at every call, so that there are no ranges to quantize by."""
        self.denoiser, self.layers = denoiser, dict(layers)
        self.quantizers = _by_first_layer(self.layers)
        self.correction: OutputCorrection | None = None
        self._dynamic = dynamic

    @property
    def tables(self) -> dict[str, PrecalculatedProjection] | dict[str, Delta]:
        """Its time tables by name: those precalculated, or those added to what is computed once a request."""
        return projections(self.denoiser) or deltas(self.denoiser)

    def quantize_weights(self, on: bool) -> None:
        """Makes the layers multiply by quantized weights, or by the masters."""
        for layer in self.layers.values():
            layer.weight_quantized = on

    def quantize_inputs(self, on: bool) -> None:
        """Makes the layers quantize their inputs, or not."""
        for inputs in self.quantizers.values():
            inputs.enabled = on and not self._dynamic

    @contextmanager
    def float_inputs(self) -> Iterator[None]:
        """Inputs that are not quantized while the context is open."""
        before = {name: inputs.enabled for name, inputs in self.quantizers.items()}
        self.quantize_inputs(False)
        try:
            yield
        finally:
            for name, enabled in before.items():
                self.quantizers[name].enabled = enabled

    def parameters_of(self, names: Iterable[str]) -> dict[str, Tensor]:
        """All tensors of these layers, by name: what a journal keeps of them."""
        return {f"{n}.{key}": t for n in names for key, t in self.layers[n].state_dict().items()}

    @property
    def ranges(self) -> dict[str, Tensor]:
        """The tables of all input quantizers, by name."""
        return {
            f"{name}.{part}": getattr(quantizer, part)
            for name, quantizer in self.quantizers.items()
            for part in ("scale", "zero_point", "bits", "log_change")
        }

    def restore_ranges(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes over what `ranges` gave."""
        for key, tensor in tensors.items():
            name, _, part = key.rpartition(".")
            getattr(self.quantizers[name], part).data.copy_(tensor)

    @property
    def trained(self) -> dict[str, Tensor]:
        """All that training may have changed: the tensors of all layers, and the time tables."""
        tables = {f"{_TABLE}{name}": projection.table for name, projection in self.tables.items()}
        return self.parameters_of(self.layers) | tables

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes over what `parameters_of` or `trained` gave."""
        states: dict[str, dict[str, Tensor]] = {}
        tables = self.tables
        for key, tensor in tensors.items():
            if key.startswith(_TABLE):
                tables[key.removeprefix(_TABLE)].table.data.copy_(tensor)
                continue
            name = next(prefix for prefix in _prefixes(key) if prefix in self.layers)
            states.setdefault(name, {})[key[len(name) + 1 :]] = tensor
        for name, state in states.items():
            self.layers[name].load_state_dict(state)


def _by_first_layer(layers: Mapping[str, FakeQuantizedLayer]) -> dict[str, InputQuantizer]:
    owners: dict[int, str] = {}
    for name, layer in layers.items():
        owners.setdefault(id(layer.inputs), name)
    return {name: layers[name].inputs for name in owners.values()}


def _prefixes(key: str) -> list[str]:
    parts = key.split(".")
    return [".".join(parts[:end]) for end in range(len(parts) - 1, 0, -1)]


def fake_quantized(
    reference: nn.Module, bits: Mapping[str, int], shared: Mapping[str, str], groups: SampleGroups, activation_bits: int
) -> tuple[nn.Module, dict[str, FakeQuantizedLayer]]:
    """A copy of the reference whose layers, named in `bits` with those of their weights, are fake-quantized; and these
    by name. Layers that are `shared` have the quantizer of another one."""
    denoiser = copy.deepcopy(reference)
    quantizers: dict[str, InputQuantizer] = {}
    layers: dict[str, FakeQuantizedLayer] = {}
    for name, weight_bits in bits.items():
        owner = shared.get(name, name)
        inputs = quantizers.setdefault(owner, InputQuantizer(groups, activation_bits))
        layer: Any = denoiser.get_submodule(name)
        layers[name] = FakeQuantizedLayer(layer, weight_bits, inputs)
        replace_layer(denoiser, name, layers[name])
    return denoiser, layers


@torch.no_grad()
def shared_inputs(denoiser: nn.Module, names: Iterable[str], call: Callable[[], Any]) -> dict[str, str]:
    """Layers that are handed the same tensor as an earlier one of their block, such as the projections of an attention:
    theirs is the quantizer of that one, so that the engine quantizes the tensor once. Found by a `call` of the
    denoiser."""
    blocks = [name for name, module in denoiser.named_modules() if isinstance(module, anatomy_of(denoiser).blocks)]
    first_reader: dict[tuple[int, str], str] = {}
    shared: dict[str, str] = {}
    kept: list[Tensor] = []  # alive, so that no address is given twice

    def note(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        block = max((other for other in blocks if name.startswith(f"{other}.")), key=len, default="")

        def look(_: nn.Module, args: tuple[Any, ...]) -> None:
            kept.append(args[0])
            first = first_reader.setdefault((id(args[0]), block), name)
            if block and first != name:
                shared[name] = first

        return look

    handles = [denoiser.get_submodule(name).register_forward_pre_hook(note(name)) for name in names]
    try:
        call()
    finally:
        for handle in handles:
            handle.remove()
    return shared
