"""The time path once a request, for all timesteps together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.models.embeddings import TimestepEmbedding
from torch import Tensor, nn

from quant.errors import TimestepError
from quant.layers.straight_through import is_trained
from quant.layers.time_path.embedding import activated, blocks, embed, looked_up, refuse_strange
from quant.layers.time_path.schedule import Schedule
from quant.layers.timesteps import PerThread

_POSITIONS = {"class_labels": 3, "timestep_cond": 4, "added_cond_kwargs": 7}


class RequestSchedule(Schedule):
    """A schedule whose rows hold for one request: for T timesteps times the B pictures of its conditioning.

    Every thread has its own. They are kept until conditioning of other values, another dtype or another device comes;
    whoever changes the layers' weights after a call calls `forget`."""

    def __init__(self, timesteps: Sequence[float]) -> None:
        super().__init__(timesteps)
        self._computing = PerThread(False)
        self._last: PerThread[dict[str, Tensor]] = PerThread({})

    @property
    def computing(self) -> bool:
        """Whether the calling thread makes rows."""
        return self._computing.get()

    def forget(self) -> None:
        """Has the rows made anew at the next call, in every thread."""
        self._last = PerThread({})

    def _before(self, denoiser: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super()._before(denoiser, args, kwargs)
        request = _conditioning(denoiser, args, kwargs)
        trained = is_trained(denoiser, *request.values())
        # Rows of another thread are not taken over: it may be about to make others.
        if not trained and _equal(request, self._last.own() or {}):
            return
        self._last.set({})
        self._computing.set(True)
        try:
            with torch.set_grad_enabled(trained):
                embedding = embed(denoiser, denoiser.time_embedding, self.timesteps, request)
                for block in blocks(denoiser):
                    block.time_emb_proj.compute(activated(block, embedding))
        finally:
            self._computing.set(False)
        # Rows with a gradient hold for this call: its backward pass frees what they were made with.
        self._last.set({} if trained else {name: tensor.clone() for name, tensor in request.items()})


class RequestProjection(nn.Linear):
    """A `time_emb_proj` that is looked up; its weights keep their names, so that checkpoints stay the same."""

    schedule: RequestSchedule
    made: PerThread[Tensor | None]

    @property
    def rows(self) -> Tensor | None:
        """The outputs that this thread remembers, [T, B, C]."""
        return self.made.get()

    def compute(self, x: Tensor) -> None:
        """Remembers the outputs for `x` [T, B, E], B being 1 where every picture has the same, for this thread."""
        self.made.set(super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2]))

    def _load_from_state_dict(self, *arguments: Any) -> None:
        self.schedule.forget()
        super()._load_from_state_dict(*arguments)

    def __getstate__(self) -> dict[str, Any]:
        """A copy has the rows without their gradient, which cannot be copied."""
        rows = self.rows
        return self.__dict__ | {"made": PerThread(None if rows is None else rows.detach())}

    def forward(self, x: Tensor) -> Tensor:
        """As PrecalculatedProjection. Raises TimestepError before the first call of the denoiser."""
        rows = self.rows
        if rows is None:
            raise TimestepError("the denoiser as a whole must be called first: it makes the rows of this projection")
        return looked_up(rows, self.schedule.current, x)


class RequestEmbedding(TimestepEmbedding):  # type: ignore[misc]
    """A `time_embedding` or `add_embedding` that rests while its outputs are looked up further on."""

    schedule: RequestSchedule

    def _load_from_state_dict(self, *arguments: Any) -> None:
        self.schedule.forget()
        super()._load_from_state_dict(*arguments)

    def forward(self, sample: Tensor, condition: Tensor | None = None) -> Tensor:
        """Zeros [B, 1] in the dtype of `sample` [B, C], but while tables are made the embedding [B, E]."""
        if self.schedule.computing:
            out: Tensor = super().forward(sample, condition)
            return out
        return sample.new_zeros(len(sample), 1)


def per_request(denoiser: nn.Module, timesteps: Sequence[float]) -> Schedule:
    """Has the projections of a floating-point UNet looked up, in place: when a call comes with conditioning other than
    the last one's, all T x B rows are computed, one product per projection. Names and tensors stay.

    Raises RecipeMismatch for embeddings of pictures, and where the time path is quantized or replaced already."""
    refuse_strange(denoiser)
    schedule = RequestSchedule(timesteps)
    for block in blocks(denoiser):
        projection = block.time_emb_proj
        projection.__class__ = RequestProjection
        projection.schedule, projection.made = schedule, PerThread(None)
    for embedding in (denoiser.time_embedding, getattr(denoiser, "add_embedding", None)):
        if embedding is not None:
            embedding.__class__ = RequestEmbedding  # type: ignore[assignment]
            embedding.schedule = schedule  # type: ignore[union-attr,assignment]
    schedule.follow(denoiser)
    return schedule


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
