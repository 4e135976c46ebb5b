"""The time path of a UNet computed before it is needed: residual blocks look their projections up by timestep.

Sinusoid, embedding and the projections of the blocks are a function of the timestep, which takes few values. Without
other conditioning, tables for a fixed schedule replace the layers ("Efficiency Meets Fidelity", arXiv 2412.06661: time
information precalculation; the cache of TFMQ-DM, arXiv 2407.19547). Where the embedding also holds pooled texts or the
like, the layers stay, and rows are made anew for every request. A timestep is looked up exactly, never interpolated."""

from __future__ import annotations

import copy
import ctypes
import math
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from diffusers.models.attention_processor import SpatialNorm
from diffusers.models.embeddings import TimestepEmbedding
from diffusers.models.normalization import AdaGroupNorm
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from quant.errors import CheckpointError, RecipeMismatch, TimestepError

MODES = ("keep", "precalculate", "per_request")
"""What can be done with the time path."""

TIME_LAYERS = ("time_embedding.*", "*.time_emb_proj", "add_embedding.*", "class_embedding.*")
"""Patterns of the layers of the time path, the temporal information block of TFMQ-DM."""

_POSITIONS = {"class_labels": 3, "timestep_cond": 4, "added_cond_kwargs": 7}
_NAMED = 50


class Schedule:
    """The timesteps that a denoiser may be called with, in sampling order, each stored once.

    `current` is the row of the call that runs: an int, or int64 [B] where one batch holds different timesteps. All
    modules of a denoiser share one object, as they share a TimestepGroups."""

    def __init__(self, timesteps: Sequence[float]) -> None:
        """Raises TimestepError for none at all, and for one that is not a number from 0 on."""
        if not timesteps or any(not math.isfinite(t) or t < 0 for t in timesteps):
            raise TimestepError("a schedule is one timestep or more, all finite and not negative")
        rows: dict[float, float] = {}
        for timestep in timesteps:
            rows.setdefault(_key(timestep), float(timestep))
        self.timesteps = tuple(rows.values())
        self.current: int | Tensor = 0
        self._rows = {key: row for row, key in enumerate(rows)}

    def __len__(self) -> int:
        """How many different timesteps there are."""
        return len(self.timesteps)

    def select(self, timestep: Tensor | float) -> None:
        """Makes the rows of `timestep`, a number or a tensor of 0 or 1 dimensions, the current ones.

        Raises TimestepError, naming those allowed, for a timestep outside of the schedule."""
        values = timestep.flatten().tolist() if isinstance(timestep, Tensor) else [timestep]
        rows = [self._row(float(value)) for value in values]
        self.current = rows[0] if len(set(rows)) == 1 else torch.tensor(rows)

    def follow(self, denoiser: nn.Module) -> RemovableHandle:
        """Selects before every call of `denoiser`, from its `timestep` argument (the second one)."""

        # A bound method: a copy of the denoiser then has a hook on the copy of this object.
        return denoiser.register_forward_pre_hook(self._before, with_kwargs=True)

    def _before(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.select(kwargs["timestep"] if "timestep" in kwargs else args[1])

    def _row(self, timestep: float) -> int:
        row = self._rows.get(_key(timestep))
        if row is None:
            allowed = ", ".join(f"{t:.9g}" for t in self.timesteps[:_NAMED])
            more = f" and {len(self) - _NAMED} more" if len(self) > _NAMED else ""
            raise TimestepError(f"timestep {timestep:.9g} is not in the schedule of this denoiser: {allowed}{more}")
        return row


class PrecalculatedProjection(nn.Module):
    """The outputs of a block's `time_emb_proj`, one row per timestep of a schedule: buffer `table`, float32 [T, C]."""

    table: Tensor

    def __init__(self, timesteps: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("table", torch.zeros(timesteps, channels))
        self.schedule: Schedule | None = None

    def forward(self, x: Tensor) -> Tensor:
        """[B, C] in the dtype of `x` [B, any], whose values play no part."""
        current = 0 if self.schedule is None else self.schedule.current
        return _looked_up(self.table[:, None], current, x)

    def check(self) -> None:
        """Raises CheckpointError where the table makes no sense."""
        if self.schedule is not None and len(self.table) != len(self.schedule):
            raise CheckpointError(f"a table of {len(self.table)} rows for {len(self.schedule)} timesteps")
        if not bool(self.table.isfinite().all()):
            raise CheckpointError("the table of a precalculated projection must be finite")

    def extra_repr(self) -> str:
        return f"timesteps={self.table.shape[0]}, channels={self.table.shape[1]}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PrecalculatedProjection:
        """Moves, but stays float32: a cast table could not be told from a damaged one when it is saved."""
        table = self.table
        super()._apply(fn, recurse)
        if self.table.dtype != table.dtype:
            self.table = table.to(self.table.device)
        return self


class PrecalculatedEmbedding(nn.Module):
    """Stands in for a `time_embedding` that nobody reads any more."""

    def __init__(self) -> None:
        super().__init__()
        self.schedule: Schedule | None = None

    def forward(self, sample: Tensor, condition: Tensor | None = None) -> Tensor:
        """Zeros [B, 1] in the dtype of `sample` [B, C]."""
        return sample.new_zeros(len(sample), 1)


class RequestSchedule(Schedule):
    """A schedule whose rows hold for one request: for T timesteps times the B pictures of its conditioning.

    They are kept until conditioning of other values, another dtype or another device comes; whoever changes the layers'
    weights after a call calls `forget`."""

    def __init__(self, timesteps: Sequence[float]) -> None:
        super().__init__(timesteps)
        self.computing = False
        self._last: dict[str, Tensor] = {}

    def forget(self) -> None:
        """Has the rows made anew at the next call."""
        self._last = {}

    def _before(self, denoiser: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super()._before(denoiser, args, kwargs)
        request = _conditioning(denoiser, args, kwargs)
        if _equal(request, self._last):
            return
        self.forget()
        self.computing = True
        try:
            with torch.no_grad():
                embedding = _embed(denoiser, denoiser.time_embedding, self.timesteps, request)
                for block in _blocks(denoiser):
                    block.time_emb_proj.compute(_activated(block, embedding))
        finally:
            self.computing = False
        self._last = {name: tensor.clone() for name, tensor in request.items()}


class RequestProjection(nn.Linear):
    """A `time_emb_proj` that is looked up; its weights keep their names, so that checkpoints stay the same."""

    schedule: RequestSchedule
    rows: Tensor | None

    def compute(self, x: Tensor) -> None:
        """Remembers the outputs for `x` [T, B, E], B being 1 where every picture has the same."""
        self.rows = super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])

    def forward(self, x: Tensor) -> Tensor:
        """As PrecalculatedProjection. Raises TimestepError before the first call of the denoiser."""
        if self.rows is None:
            raise TimestepError("the denoiser as a whole must be called first: it makes the rows of this projection")
        return _looked_up(self.rows, self.schedule.current, x)


class RequestEmbedding(TimestepEmbedding):  # type: ignore[misc]
    """A `time_embedding` or `add_embedding` that rests while its outputs are looked up further on."""

    schedule: RequestSchedule

    def forward(self, sample: Tensor, condition: Tensor | None = None) -> Tensor:
        """Zeros [B, 1] in the dtype of `sample` [B, C], but while tables are made the embedding [B, E]."""
        if self.schedule.computing:
            out: Tensor = super().forward(sample, condition)
            return out
        return sample.new_zeros(len(sample), 1)


def precalculate(denoiser: nn.Module, timesteps: Sequence[float]) -> Schedule:
    """Replaces the time path of a floating-point UNet by tables for `timesteps`, in place, computed in float32 with its
    own layers, and selects their rows before every call.

    Raises RecipeMismatch where the time path depends on more than the timestep, is quantized or replaced already."""
    _refuse_conditioning(denoiser)
    schedule, path = Schedule(timesteps), copy.deepcopy(denoiser.time_embedding).float()  # type: ignore[operator]
    with torch.no_grad():
        # One by one: a product of many rows sums in another order than that of the single row of an evaluation.
        embeddings = [_embed(denoiser, path, (timestep,), {})[0] for timestep in schedule.timesteps]
        for block in _blocks(denoiser):
            layer = copy.deepcopy(block.time_emb_proj).float()
            projection = PrecalculatedProjection(len(schedule), layer.out_features)
            projection.table = torch.cat([layer(_activated(block, embedding)) for embedding in embeddings])
            block.time_emb_proj = projection
    denoiser.time_embedding = PrecalculatedEmbedding()
    return _connect(denoiser, schedule)


def lay_out_tables(denoiser: nn.Module, timesteps: Sequence[float]) -> None:
    """Puts empty tables in place of the time path: what `precalculate` leaves, before its tensors are read. Raises what
    that raises."""
    _refuse_conditioning(denoiser)
    rows = len(Schedule(timesteps))
    for block in _blocks(denoiser):
        block.time_emb_proj = PrecalculatedProjection(rows, block.time_emb_proj.out_features)
    denoiser.time_embedding = PrecalculatedEmbedding()


def per_request(denoiser: nn.Module, timesteps: Sequence[float]) -> Schedule:
    """Has the projections of a floating-point UNet looked up, in place: when a call comes with conditioning other than
    the last one's, all T x B rows are computed, one product per projection. Names and tensors stay.

    Raises RecipeMismatch for embeddings of pictures, and where the time path is quantized or replaced already."""
    _refuse_strange(denoiser)
    schedule = RequestSchedule(timesteps)
    for block in _blocks(denoiser):
        projection = block.time_emb_proj
        projection.__class__ = RequestProjection
        projection.schedule, projection.rows = schedule, None
    for embedding in (denoiser.time_embedding, getattr(denoiser, "add_embedding", None)):
        if embedding is not None:
            embedding.__class__ = RequestEmbedding  # type: ignore[assignment]
            embedding.schedule = schedule  # type: ignore[union-attr,assignment]
    schedule.follow(denoiser)
    return schedule


def serve(denoiser: nn.Module, mode: str, timesteps: Sequence[float]) -> None:
    """Brings the time path into a mode, in place, from whichever state it is in: floating point, tables that were empty
    and have been filled, or ready. Raises RecipeMismatch where it is ready for something else."""
    if mode == "keep":
        return
    present = getattr(getattr(denoiser, "time_embedding", None), "schedule", None)
    if present is not None:
        same = present.timesteps == Schedule(timesteps).timesteps
        if not same or isinstance(present, RequestSchedule) != (mode == "per_request"):
            raise RecipeMismatch("the time path is ready for another mode or schedule: start from the float model")
    elif mode == "per_request":
        per_request(denoiser, timesteps)
    elif projections(denoiser):
        _connect(denoiser, Schedule(timesteps))
    else:
        precalculate(denoiser, timesteps)


def check_mode(denoiser: nn.Module, mode: str) -> None:
    """Raises RecipeMismatch where the time path, if it is in floating point yet, cannot be brought into the mode."""
    replaced = isinstance(getattr(denoiser, "time_embedding", None), PrecalculatedEmbedding | RequestEmbedding)
    if mode == "precalculate" and not replaced:
        _refuse_conditioning(denoiser)
    elif mode == "per_request" and not replaced:
        _refuse_strange(denoiser)


def projections(denoiser: nn.Module) -> dict[str, PrecalculatedProjection]:
    """The precalculated projections by their full name."""
    return {name: module for name, module in denoiser.named_modules() if isinstance(module, PrecalculatedProjection)}


def is_time_layer(name: str) -> bool:
    """Whether a layer of this full name belongs to the time path."""
    return any(fnmatchcase(name, pattern) for pattern in TIME_LAYERS)


def _key(timestep: float) -> float:
    """What the sinusoid sees of a timestep: float32. So a schedule out of JSON fits a scheduler's tensor."""
    return ctypes.c_float(timestep).value


def _connect(denoiser: nn.Module, schedule: Schedule) -> Schedule:
    for projection in projections(denoiser).values():
        projection.schedule = schedule
    denoiser.time_embedding.schedule = schedule  # type: ignore[union-attr]
    schedule.follow(denoiser)
    return schedule


def _blocks(denoiser: nn.Module) -> list[Any]:
    """The residual blocks that take the embedding."""
    return [
        module
        for module in denoiser.modules()
        if isinstance(module, ResnetBlock2D) and module.time_emb_proj is not None
    ]


def _refuse_conditioning(denoiser: Any) -> None:
    _refuse_strange(denoiser)
    config = denoiser.config
    needs = {
        "addition_embed_type": config.addition_embed_type is not None,
        "class_embedding": denoiser.class_embedding is not None,
        "time_cond_proj_dim": config.time_cond_proj_dim is not None,
    }
    for name, there in needs.items():
        if there:
            raise RecipeMismatch(f"{name}: the time path depends on more than the timestep; use time_path per_request")


def _refuse_strange(denoiser: Any) -> None:
    """Refuses what can be neither precalculated nor looked up."""
    if not hasattr(denoiser, "get_aug_embed"):
        raise RecipeMismatch(f"{type(denoiser).__name__} has not the time path of a UNet2DConditionModel: keep it")
    kind = denoiser.config.addition_embed_type
    if kind not in (None, "text_time"):
        raise RecipeMismatch(f"addition_embed_type {kind!r} is computed anew by every call: keep the time path")
    for name, module in denoiser.named_modules():
        if isinstance(module, AdaGroupNorm | SpatialNorm):
            raise RecipeMismatch(f"{name} takes the embedding without a time_emb_proj: keep the time path")
    embeddings = [e for e in (denoiser.time_embedding, getattr(denoiser, "add_embedding", None)) if e is not None]
    untouched = all(type(embedding) is TimestepEmbedding for embedding in embeddings)
    layers = [block.time_emb_proj for block in _blocks(denoiser)]
    layers += [layer for e in embeddings if untouched for layer in (e.linear_1, e.linear_2)]
    if not untouched or any(type(layer) is not nn.Linear for layer in layers):
        raise RecipeMismatch("the time path is quantized or replaced already: start from the float model")


def _conditioning(denoiser: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Tensor]:
    """All that the embedding is made of but the timestep, and an empty tensor like the weights it is made with."""
    given = {name: kwargs.get(name, (*args, *[None] * 8)[at]) for name, at in _POSITIONS.items()}
    request = {"weight": denoiser.time_embedding.linear_1.weight.new_empty(0), "timestep_cond": given["timestep_cond"]}
    if denoiser.class_embedding is not None:
        request["class_labels"] = given["class_labels"]
    if denoiser.config.addition_embed_type is not None:
        added = given["added_cond_kwargs"] or {}
        request |= {name: added.get(name) for name in ("text_embeds", "time_ids")}
    return {name: tensor for name, tensor in request.items() if tensor is not None}


def _equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        (a.device, a.dtype) == (b.device, b.dtype) and torch.equal(a, b)
        for a, b in ((tensor, other[name]) for name, tensor in one.items())
    )


def _embed(denoiser: Any, path: Any, timesteps: Sequence[float], request: dict[str, Tensor]) -> Tensor:
    """The embedding [T, B, E] as the denoiser's forward makes it, `path` being its time embedding; B is 1 without
    conditioning."""
    weight, condition = path.linear_1.weight, request.get("timestep_cond")
    sample = weight.new_zeros(len(timesteps), 1)
    values = torch.tensor(timesteps, dtype=torch.float32, device=weight.device)
    sinusoid = denoiser.get_time_embed(sample=sample, timestep=values)
    if condition is None:
        out = path(sinusoid)[:, None]
    else:
        pairs = sinusoid.repeat_interleave(len(condition), 0), condition.to(weight.dtype).repeat(len(values), 1)
        out = path(*pairs).unflatten(0, (len(values), -1))
    classes = denoiser.get_class_embed(sample=sample, class_labels=request.get("class_labels"))
    if classes is not None and denoiser.config.class_embeddings_concat:
        wide = torch.broadcast_shapes(out.shape[:-1], (1, len(classes)))
        out = torch.cat([out.expand(*wide, -1), classes.expand(*wide, -1)], dim=-1)
    elif classes is not None:
        out = out + classes
    added = denoiser.get_aug_embed(emb=out, encoder_hidden_states=None, added_cond_kwargs=request)
    out = out if added is None else out + added
    return out if denoiser.time_embed_act is None else denoiser.time_embed_act(out)


def _activated(block: Any, embedding: Tensor) -> Tensor:
    return embedding if block.skip_time_act else block.nonlinearity(embedding)


def _looked_up(rows: Tensor, current: int | Tensor, like: Tensor) -> Tensor:
    """The current rows of [T, B, C], B pictures or one for all: [B, C], contiguous, in the dtype of `like` [B, any]."""
    if isinstance(current, Tensor):
        pictures = torch.arange(len(current)) if rows.shape[1] > 1 else torch.zeros_like(current)
        out = rows[current.to(rows.device), pictures.to(rows.device)]
    else:
        out = rows[current].expand(len(like), -1)
    return out.to(like.dtype).contiguous()
