"""Which layers of a denoiser are quantized and how: all that must be known before their tensors are read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from diffusers.models.attention_processor import Attention
from torch import nn

from quant.discovery import anatomy_of
from quant.engine.memory import TrimAfterFirstCall
from quant.errors import RecipeMismatch
from quant.layers.attention import AttentionProducts, IntegerAttnProcessor
from quant.layers.conv import QuantizedConv2d
from quant.layers.diffusers_methods import mark
from quant.layers.layer import QuantizedLayer
from quant.layers.linear import QuantizedLinear
from quant.layers.output_correction import OutputCorrection, correction_of
from quant.layers.shortcut import SplitConv2d
from quant.layers.time_path.coded import TIME_BITS, coded, lay_out_coded
from quant.layers.time_path.delta import add_deltas, deltas
from quant.layers.time_path.precalculated import lay_out_tables, projections, refuse_untimed
from quant.layers.time_path.schedule import Schedule
from quant.layers.time_path.serving import MODES, is_replaced, serve
from quant.layers.timesteps import TimestepGroups


@dataclass(frozen=True)
class Layout:
    """Patterns are fnmatch on a layer's full name, the halves of a split shortcut being `<name>.hidden` and `.skip`.

    `layer_bits` are exceptions from `weight_bits`, the first match counts; `timesteps` are the representatives of the
    groups of the tables (none: one group); `splits` maps shortcut convolutions to the channels of their first half;
    `dynamic_activations` gives linear layers a scale per token; `attention_bits` quantizes query, key and value, the
    softmax output having `softmax_bits`; `packed` keeps weights of 4 bits or fewer packed in memory.

    `time_path` says what becomes of the layers that depend on the timestep: kept, replaced by tables ("precalculate")
    or looked up ("per_request") for the timesteps of `schedule`. What is looked up has `time_bits` or stays in floating
    point, and its inputs are never quantized; `time_deltas` are trained rows that are added to it. `output_correction`
    has a correction for each of those timesteps."""

    weight_bits: int = 8
    keep_float: tuple[str, ...] = ()
    layer_bits: Mapping[str, int] = field(default_factory=dict)
    timesteps: tuple[float, ...] = ()
    splits: Mapping[str, int] = field(default_factory=dict)
    dynamic_activations: bool = False
    attention_bits: int | None = None
    softmax_bits: int = 8
    packed: bool = False
    time_path: str = "keep"
    schedule: tuple[float, ...] = ()
    output_correction: bool = False
    time_bits: int | None = None
    time_deltas: bool = False

    def __post_init__(self) -> None:
        for what, bits in {"weight_bits": self.weight_bits, **self.layer_bits}.items():
            if type(bits) is not int or not 2 <= bits <= 8:
                raise RecipeMismatch(f"{what}: weights have 2 to 8 bits, not {bits!r}")
        TimestepGroups(self.timesteps)
        if self.time_path not in MODES:
            raise RecipeMismatch(f"time_path {self.time_path!r} is not one of {', '.join(MODES)}")
        if self.time_bits is not None and (self.time_path != "per_request" or self.time_bits not in TIME_BITS):
            raise RecipeMismatch(f"time_bits are {TIME_BITS}, of a time path that is looked up per_request")
        if self.time_deltas and self.time_path != "per_request":
            raise RecipeMismatch("time_deltas are of a time path that is looked up per_request: tables are trained")
        if self.schedule:
            Schedule(self.schedule)
        elif self.time_path != "keep" or self.output_correction:
            raise RecipeMismatch("time_path and output_correction need the schedule: the timesteps of the sampler")

    @property
    def replaces_time_path(self) -> bool:
        """Whether the time path is out of the quantizer's reach."""
        return self.time_path != "keep"


@dataclass(frozen=True)
class Plan:
    """The weight bits of every quantized layer and the names of the layers that stay in floating point."""

    bits: dict[str, int]
    float_layers: tuple[str, ...]


def prepare(denoiser: nn.Module, layout: Layout) -> Plan:
    """Splits the shortcuts, in place, and goes through all linear and convolution layers; those of a time path that is
    not kept are not quantized, whether they are still there or not.

    Raises RecipeMismatch when a pattern or a split matches no layer, when nothing is left to quantize or when the time
    path cannot be treated as the layout says."""
    anatomy = anatomy_of(denoiser)
    path = anatomy.time_path(denoiser) if layout.replaces_time_path else None
    if path is not None and not is_replaced(denoiser, path):
        path.refuse_touched(denoiser)
        if layout.time_path == "precalculate":
            refuse_untimed(path)
    for name, channels in layout.splits.items():
        shortcut = _find(denoiser, name)
        if not isinstance(shortcut, nn.Conv2d):
            raise RecipeMismatch(f"{name!r} is no convolution of this model, so it cannot be split")
        replace_layer(denoiser, name, SplitConv2d.of(shortcut, channels))
    names = [name for name, module in denoiser.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    timed = [] if path is None else [name for name in names if path.has(name)]
    others = [name for name in names if name not in set(timed)]
    gone = (
        [] if path is None else [*path.projections, *(f"{name}.linear_{i}" for name in path.embedders for i in (1, 2))]
    )
    _check_patterns(layout.keep_float, [*others, *timed, *gone])
    _check_patterns(layout.layer_bits, others)
    kept = {name for name in others if any(fnmatchcase(name, pattern) for pattern in layout.keep_float)}
    bits = {name: bits_of(layout, name) for name in others if name not in kept}
    if not bits:
        raise RecipeMismatch("keep_float leaves no layer to quantize")
    floats = kept if layout.time_path == "precalculate" else kept.union(timed)
    return Plan(bits, tuple(name for name in names if name in floats))


def lay_out(denoiser: nn.Module, layout: Layout) -> Plan:
    """Replaces the layers of a denoiser by empty quantized ones, in place. Raises what `prepare` raises."""
    plan = prepare(denoiser, layout)
    for name, bits in plan.bits.items():
        replace_layer(denoiser, name, empty_like(denoiser.get_submodule(name), bits, layout))
    anatomy = anatomy_of(denoiser)
    if layout.attention_bits is not None:
        for attention in anatomy.attentions(denoiser).values():
            groups = max(len(layout.timesteps), 1)
            attention.products = AttentionProducts(layout.attention_bits, layout.softmax_bits, groups)
    if layout.time_path == "precalculate":
        lay_out_tables(denoiser, anatomy.time_path(denoiser), layout.schedule)
    elif layout.time_bits is not None:
        lay_out_coded(denoiser, anatomy.time_path(denoiser), layout.time_bits)
    if layout.time_deltas:
        add_deltas(denoiser, anatomy.time_path(denoiser), len(Schedule(layout.schedule)))
    if layout.output_correction:
        denoiser.output_correction = OutputCorrection(Schedule(layout.schedule).timesteps, anatomy.channels(denoiser))
    return plan


def finish(denoiser: nn.Module, layout: Layout) -> None:
    """Gives the layers, once they have their tensors, what they share: the timestep groups and the residency; attention
    its integer products; and time path and output correction their hooks, a time path still in floating point being
    replaced first. Raises CheckpointError, naming the module, where tensors make no sense, and RecipeMismatch for a
    time path that cannot be replaced."""
    anatomy, groups = anatomy_of(denoiser), TimestepGroups(layout.timesteps)
    groups.follow(denoiser, anatomy.clock)
    if layout.replaces_time_path:
        serve(denoiser, anatomy.time_path(denoiser), layout.time_path, layout.schedule, anatomy.clock)
    correction = correction_of(denoiser)
    if correction is not None:
        correction.follow(denoiser, anatomy.clock)
    TrimAfterFirstCall(denoiser)
    for layer in quantized_layers(denoiser).values():
        layer.timesteps, layer.packed = groups, layout.packed
    for integers in products(denoiser).values():
        integers.timesteps = groups
    mark(denoiser)
    for attention in attentions(denoiser):
        mark(attention)
        if hasattr(attention, "products"):
            attention.set_processor(IntegerAttnProcessor())


def empty_like(layer: nn.Module, weight_bits: int, layout: Layout | None = None) -> QuantizedLayer[Any]:
    """An empty quantized layer with the sizes of a linear or convolution layer."""
    layout = layout or Layout()
    groups = max(len(layout.timesteps), 1)
    if isinstance(layer, nn.Linear):
        return QuantizedLinear.like(layer, weight_bits, 0 if layout.dynamic_activations else groups)
    if isinstance(layer, nn.Conv2d):
        return QuantizedConv2d.like(layer, weight_bits, groups)
    raise RecipeMismatch(f"{type(layer).__name__} cannot be quantized: linear and 2-d convolution layers can")


def replace_layer(model: nn.Module, name: str, layer: nn.Module) -> None:
    """Puts `layer` in place of the submodule called `name`, in place."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, layer)


def quantized_layers(model: nn.Module) -> dict[str, QuantizedLayer[Any]]:
    """All quantized layers by their full name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, QuantizedLayer)}


def attentions(model: nn.Module) -> list[Attention]:
    """All attention modules of diffusers' class."""
    return [module for module in model.modules() if isinstance(module, Attention)]


def products(model: nn.Module) -> dict[str, AttentionProducts]:
    """The integer products of attention by their full name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, AttentionProducts)}


def stored_modules(model: nn.Module) -> dict[str, Any]:
    """By their full name, all modules of ours: their tensors are stored as they are, and they have a `check`."""
    correction = correction_of(model)
    own = {} if correction is None else {"output_correction": correction}
    return quantized_layers(model) | products(model) | projections(model) | coded(model) | deltas(model) | own


def _find(model: nn.Module, name: str) -> nn.Module | None:
    try:
        return model.get_submodule(name)
    except AttributeError:
        return None


def _check_patterns(patterns: Iterable[str], names: list[str]) -> None:
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise RecipeMismatch(f"pattern {pattern!r} matches no layer of this model")


def bits_of(layout: Layout, name: str) -> int:
    """The weight bits of a layer."""
    exceptions = (bits for pattern, bits in layout.layer_bits.items() if fnmatchcase(name, pattern))
    return next(exceptions, layout.weight_bits)
