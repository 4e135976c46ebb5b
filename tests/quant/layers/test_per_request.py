"""The time path once a request, against the float model that computes it at every call."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from quant.errors import TimestepError
from tests.support.timed_unet import (
    SDXL,
    TIMESTEPS,
    build_unet,
    distance,
    inputs,
    pair,
    per_request,
    pooled,
    projected,
    run,
    whole,
)


@pytest.mark.parametrize("config", [SDXL, {}], ids=["pooled", "plain"])
def test_per_request_is_the_float_model(config: dict[str, Any]) -> None:
    unet, served = pair(per_request, **config)
    assert served.state_dict().keys() == unet.state_dict().keys()
    projection = served.mid_block.resnets[0].time_emb_proj
    with pytest.raises(TimestepError, match="called first"):
        projection(torch.zeros(1, 1))
    for batch, seed in ((2, 1), (2, 2), (1, 2), (3, 1), (2, 1)):
        more = {"added_cond_kwargs": pooled(batch, seed)} if config else {}
        for timestep in (*TIMESTEPS, torch.tensor(TIMESTEPS[:batch])):
            for given, margin in ((projected, 1e-6), (whole, 1e-12)):
                wanted = given(unet, timestep, batch, **more)
                assert distance(given(served, timestep, batch, **more), wanted) <= margin
    if config:  # texts matter, so the test can fail
        one, two = (run(unet, 981.0, 2, added_cond_kwargs=pooled(2, seed)) for seed in (1, 2))
        assert distance(one, two) > 1e-4


def test_a_request_is_computed_once_and_noticed_by_its_values(monkeypatch: pytest.MonkeyPatch) -> None:
    unet = build_unet(**SDXL)
    per_request(unet, TIMESTEPS)
    calls: list[torch.Size] = []
    kind = type(unet.mid_block.resnets[0].time_emb_proj)
    compute = kind.compute
    monkeypatch.setattr(kind, "compute", lambda self, x: (calls.append(x.shape), compute(self, x))[1])
    added = pooled(2, 1)
    for timestep in TIMESTEPS:
        run(unet, timestep, 2, added_cond_kwargs={name: tensor.clone() for name, tensor in added.items()})
    assert calls == [torch.Size((len(TIMESTEPS) * 2, 128))] * 8
    added["time_ids"][1, 0] += 1  # in place: the same object, other values
    run(unet, 981.0, 2, added_cond_kwargs=added)
    added["text_embeds"][0, 0] += 1
    run(unet, 981.0, 2, added_cond_kwargs=added)
    assert len(calls) == 3 * 8
    for given in (projected, whole):
        wanted = given(build_unet(**SDXL), 981.0, 2, added_cond_kwargs=added)
        assert distance(given(unet, 981.0, 2, added_cond_kwargs=added), wanted) <= 1e-6


def test_rows_follow_dtype_and_forgetting_follows_weights() -> None:
    unet = build_unet(**SDXL)
    schedule = per_request(unet, TIMESTEPS)
    added = pooled(2, 1)
    run(unet, 21.0, 2, added_cond_kwargs=added)
    other = build_unet(**SDXL)
    other.mid_block.resnets[0].time_emb_proj.weight.mul_(3.0)
    unet.load_state_dict(other.state_dict())
    schedule.forget()
    got, wanted = (projected(model, 21.0, 2, added_cond_kwargs=added) for model in (unet, other))
    assert distance(got, wanted) <= 1e-6
    got, wanted = (run(model.double(), 21.0, 2, torch.float64, added_cond_kwargs=added) for model in (unet, other))
    assert distance(got, wanted) <= 1e-12


@pytest.mark.parametrize("concatenated", [True, False])
def test_labels_and_guidance_embeddings_are_conditioning_too(concatenated: bool) -> None:
    config = {"num_class_embeds": 5, "class_embeddings_concat": concatenated, "time_cond_proj_dim": 8}
    unet, served = pair(per_request, **config)
    for labels in ([0, 4], [4, 4]):
        more = {"class_labels": torch.tensor(labels), "timestep_cond": inputs(2, labels[0])[1][:, 0, :8]}
        for timestep in TIMESTEPS[:2]:
            for given in (projected, whole):
                wanted = given(unet, timestep, 2, **more)
                assert distance(given(served, timestep, 2, **more), wanted) <= 1e-6
            with torch.no_grad():
                positional = served(inputs(2)[0], timestep, inputs(2)[1], *more.values()).sample
            assert torch.equal(positional, run(served, timestep, 2, **more))
