"""Scenes, captions and prompt sets: splits never mix, captions say everything, the same seed says the same."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from contract.places import ROOT
from quant.errors import PromptSetError
from quant.sampling.prompts import SPLITS, load_prompts, prompt_sets, prompts_from_texts
from shapes.caption import Style, caption
from shapes.prompts import prompt_lines
from shapes.scene import Arrangement, Split, draw_scenes
from shapes.vocabulary import ABSENT, HEAD_WORDS, attributes, targets

PROMPTS = ROOT / "prompts"


def test_compositions_of_different_splits_never_meet() -> None:
    seen = {split: {scene.composition for scene in draw_scenes(400, split, seed=3)} for split in Split}
    splits = [*Split]
    for i, first in enumerate(splits):
        for second in splits[i + 1 :]:
            assert not seen[first] & seen[second]


def test_a_composition_of_two_does_not_depend_on_order_place_or_floor() -> None:
    scene = next(s for s in draw_scenes(100, Split.TRAIN, 1) if s.arrangement is Arrangement.BESIDE)
    turned = type(scene)(scene.things[::-1], Arrangement.BEHIND, scene.floor, 7)
    assert turned.composition == scene.composition and turned.split is scene.split


def test_counts_of_objects_are_as_documented() -> None:
    counts = [len(scene.things) for scene in draw_scenes(4000, Split.TRAIN, 1)]
    shares = {n: counts.count(n) / len(counts) for n in (1, 2, 3)}
    assert shares[1] == pytest.approx(0.50, abs=0.04) and shares[2] == pytest.approx(0.46, abs=0.04)


def test_scene_i_does_not_depend_on_how_many_are_drawn() -> None:
    assert draw_scenes(5, Split.TEST, 9) == draw_scenes(50, Split.TEST, 9)[:5]


@pytest.mark.parametrize("style", Style)
def test_scenes_that_differ_in_words_have_different_captions(style: Style) -> None:
    """A caption names everything: two scenes with the same caption are the same in every attribute."""
    rng = random.Random(0)
    said: dict[str, dict[str, str]] = {}
    for scene in draw_scenes(3000, Split.TRAIN, 5):
        assert said.setdefault(caption(scene, style, rng), attributes(scene)) == attributes(scene)


def test_targets_and_attributes_agree() -> None:
    scenes = draw_scenes(50, Split.TEST, 2)
    for row, scene in zip(targets(scenes).tolist(), scenes, strict=True):
        words = {head: HEAD_WORDS[head][i] for head, i in zip(HEAD_WORDS, row, strict=True) if i != ABSENT}
        assert words == attributes(scene)
        assert len([head for head in words if head.startswith("shape")]) == len(scene.things)


@pytest.mark.parametrize("style", Style)
@pytest.mark.parametrize("split", [Split.CALIBRATION, Split.VALIDATION])
def test_the_shipped_prompts_are_what_the_code_makes(style: Style, split: Split) -> None:
    shipped = (PROMPTS / f"shapes-{style}" / f"{split}.jsonl").read_text().splitlines()
    assert prompt_lines(style, split, len(shipped)) == shipped


def test_no_prompt_is_in_two_splits_or_twice() -> None:
    for name in prompt_sets(PROMPTS):
        texts = [prompt.text for split in SPLITS for prompt in load_prompts(PROMPTS, name, split)]
        assert len(texts) == len(set(texts)) > 1000


def test_a_split_takes_turns_between_sets() -> None:
    ids = [prompt.id for prompt in load_prompts(PROMPTS, "test", "test", 4)]
    assert ids == ["ornate-test-0000", "plain-test-0000", "ornate-test-0001", "plain-test-0001"]


def test_bad_prompt_sets_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "test.jsonl").write_text("")
    with pytest.raises(PromptSetError, match="no prompts"):
        load_prompts(tmp_path, "own", "test")
    (folder / "test.jsonl").write_text(json.dumps({"id": 1}) + "\n")
    with pytest.raises(PromptSetError, match=r"line 1.*prompt"):
        load_prompts(tmp_path, "own", "test")
    with pytest.raises(PromptSetError, match="there are own"):
        load_prompts(tmp_path, "../own", "test")
    for texts in ([], ["  "], ["a", "a"]):
        with pytest.raises(PromptSetError):
            prompts_from_texts(texts)
