"""Cards are read once and again when they change, and none is read that is no card by its size."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from contract.errors import RegistryError
from contract.registry import CARD_BYTES, Registry
from tests.support.cards import card, stage


def test_hundreds_of_variants_are_listed_without_reading_their_cards_again(tmp_path: Path) -> None:
    for number in range(300):
        stage(tmp_path / "shipped" / "tiny" / f"v{number}", variant=f"v{number}")
    registry = Registry(tmp_path / "shipped", tmp_path)
    start = time.process_time()
    first = registry.variants("tiny")
    read = time.process_time() - start
    start = time.process_time()
    again = registry.variants("tiny")
    assert [found.card for found in again] == [found.card for found in first]
    assert all(one.card is other.card for one, other in zip(first, again, strict=True))
    assert time.process_time() - start < max(read, 0.05)


def test_a_replaced_card_is_read_again(tmp_path: Path) -> None:
    folder = stage(tmp_path / "shipped" / "tiny" / "v", variant="v")
    registry = Registry(tmp_path / "shipped", tmp_path)
    before = registry.get("tiny", "v")
    other = tmp_path / "other"
    other.write_text(card("tiny", "v").model_copy(update={"digest": "1" * 64}).model_dump_json())
    os.utime(other, ns=(0, (folder / "card.json").stat().st_mtime_ns))  # only the file itself is another one
    other.replace(folder / "card.json")
    after = registry.get("tiny", "v")
    assert before and after and (before.card.digest, after.card.digest) == ("0" * 64, "1" * 64)


def test_a_file_far_too_large_for_a_card_is_not_read(tmp_path: Path) -> None:
    folder = stage(tmp_path / "shipped" / "tiny" / "v", variant="v")
    stage(tmp_path / "shipped" / "tiny" / "w", variant="w")
    with (folder / "card.json").open("ab") as file:
        file.truncate(CARD_BYTES + 1)
    registry = Registry(tmp_path / "shipped", tmp_path)
    with pytest.raises(RegistryError, match="larger than"):
        registry.get("tiny", "v")
    assert [found.card.variant for found in registry.variants("tiny")] == ["w"]
