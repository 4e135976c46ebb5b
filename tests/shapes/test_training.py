"""The training loop resumes exactly, decays its rate, and every training takes a step on a handful of scenes."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from shapes.renders import cached_renders
from shapes.scene import Split, draw_scenes
from shapes.training.loop import Schedule, train
from shapes.training.text_encoder import MAX_TOKENS, build_text_encoder, build_tokenizer, draw_captions, tokenize

SCHEDULE = Schedule(iterations=20, learning_rate=0.05, warmup=4, ema_decay=0.9, save_every=10)


class Killed(Exception):
    """Stands for a process that ends in the middle of an iteration."""


def _run(folder: Path, die_at: int | None = None) -> dict[str, Tensor]:
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    seen = 0

    def loss(generator: torch.Generator) -> Tensor:
        nonlocal seen
        seen += 1
        if seen == die_at:
            raise Killed
        x = torch.randn((8, 3), generator=generator)
        return (model(x) - x.sum(dim=1, keepdim=True)).square().mean()

    return train(model, loss, SCHEDULE, folder).state_dict()


def test_a_killed_run_ends_with_the_same_weights(tmp_path: Path) -> None:
    wanted = _run(tmp_path / "whole")
    with pytest.raises(Killed):
        _run(tmp_path / "broken", die_at=17)
    resumed = _run(tmp_path / "broken")
    assert all(torch.equal(resumed[name], tensor) for name, tensor in wanted.items())


def test_the_rate_warms_up_and_decays_to_a_hundredth() -> None:
    rates = [SCHEDULE.rate(i) for i in range(21)]
    assert rates[:4] == pytest.approx([0.0125, 0.025, 0.0375, 0.05])
    assert rates[4] == pytest.approx(0.05) and rates[20] == pytest.approx(0.0005)
    assert sorted(rates[4:], reverse=True) == rates[4:]


def test_the_curve_is_kept(tmp_path: Path) -> None:
    model = nn.Linear(1, 1)
    schedule = Schedule(iterations=50, learning_rate=0.1, warmup=1)
    train(model, lambda generator: model(torch.ones(1, 1)).square().mean(), schedule, tmp_path)
    row = json.loads((tmp_path / "curve.jsonl").read_text())
    assert row["iteration"] == 50 and row["loss"] >= 0.0


def test_the_tokenizer_knows_every_word_of_both_styles(tmp_path: Path) -> None:
    scenes = draw_scenes(3000, Split.TRAIN, 1)
    tokenizer = build_tokenizer(scenes, tmp_path)
    captions = draw_captions(scenes[:300], random.Random(1))
    for text in captions:
        tokens = [token.removesuffix("</w>") for token in tokenizer.tokenize(text)]
        assert tokens == text.replace(",", " ,").replace("3d", "3 d").split(), text  # CLIP takes digits apart
    ids = tokenize(tokenizer, [*captions, "", "Zürich 漢字 \N{SNOWMAN}" * 50])
    assert ids.shape == (302, MAX_TOKENS) and int(ids.max()) < len(tokenizer)
    features = build_text_encoder(tokenizer)(ids[:2]).last_hidden_state
    assert features.shape == (2, MAX_TOKENS, 256)


def test_renders_are_made_once(tmp_path: Path) -> None:
    scenes = draw_scenes(3, Split.TRAIN, 1)
    path = tmp_path / "renders.npy"
    first = cached_renders(scenes, path)
    stamp = path.stat().st_mtime_ns
    assert (cached_renders(scenes, path) == first).all() and path.stat().st_mtime_ns == stamp
    with pytest.raises(ValueError, match="holds 3"):
        cached_renders(scenes[:2], path)
