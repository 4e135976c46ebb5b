from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from contract.errors import RegistryError, VariantExists
from contract.registry import Registry
from tests.support.cards import stage


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    stage(tmp_path / "shipped" / "tiny" / "shipped-one", variant="shipped-one")
    return Registry(tmp_path / "shipped", tmp_path / "data")


def test_shipped_and_own_variants_are_one_list(registry: Registry) -> None:
    registry.publish(stage(registry.stage("job")))
    stage(registry.stage("unfinished"), variant="unfinished")
    assert [item.card.variant for item in registry.variants()] == ["shipped-one", "w8a8-minmax"]
    assert [item.card.variant for item in registry.variants("tiny")] == ["shipped-one", "w8a8-minmax"]
    assert registry.variants("other") == []


def test_a_taken_name_is_refused_and_nothing_changes(registry: Registry) -> None:
    published = registry.publish(stage(registry.stage("a")))
    before = (published.folder / "card.json").stat().st_mtime_ns
    for variant in ("w8a8-minmax", "shipped-one"):
        with pytest.raises(VariantExists):
            registry.publish(stage(registry.stage("b"), variant=variant))
    assert (published.folder / "card.json").stat().st_mtime_ns == before


def test_of_two_publishers_one_wins_and_readers_see_whole_variants(registry: Registry) -> None:
    rounds, problems = 20, []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            for item in registry.variants("tiny"):
                if not (item.folder / "unet" / "weights").is_file():
                    problems.append(item.folder)

    reader = threading.Thread(target=read)
    reader.start()
    with ThreadPoolExecutor(2) as pool:
        for i in range(rounds):
            staged = [stage(registry.stage(f"{i}-{j}"), variant=f"v{i}") for j in range(2)]
            outcomes = list(pool.map(lambda folder: _outcome(registry, folder), staged))
            assert sorted(outcomes) == ["exists", "published"]
    done.set()
    reader.join()
    assert problems == []
    assert len(registry.variants()) == rounds + 1


def _outcome(registry: Registry, folder: Path) -> str:
    try:
        registry.publish(folder)
    except VariantExists:
        return "exists"
    return "published"


def test_an_unreadable_card_hides_only_its_own_variant(registry: Registry) -> None:
    published = registry.publish(stage(registry.stage("a")))
    (published.folder / "card.json").write_text("{")
    assert [item.card.variant for item in registry.variants()] == ["shipped-one"]
    with pytest.raises(RegistryError):
        registry.get("tiny", "w8a8-minmax")


def test_a_card_of_another_name_is_refused(registry: Registry, tmp_path: Path) -> None:
    stage(tmp_path / "shipped" / "tiny" / "renamed", variant="original")
    with pytest.raises(RegistryError):
        registry.get("tiny", "renamed")


def test_a_folder_is_named_before_and_after_publishing(registry: Registry, tmp_path: Path) -> None:
    assert registry.folder("tiny", "shipped-one") == tmp_path / "shipped" / "tiny" / "shipped-one"
    planned = registry.folder("tiny", "w8a8-minmax")
    assert registry.publish(stage(registry.stage("a"))).folder == planned == registry.folder("tiny", "w8a8-minmax")


@pytest.mark.parametrize(
    ("model", "variant"), [("..", "x"), ("tiny", "../tiny"), ("", ""), ("tiny", "A"), ("tiny", "no")]
)
def test_other_names_find_nothing(registry: Registry, model: str, variant: str) -> None:
    assert registry.get(model, variant) is None


def test_only_stale_staging_is_swept(registry: Registry) -> None:
    stale, fresh = registry.stage("stale"), registry.stage("fresh")
    os.utime(stale, (1, 1))
    assert registry.sweep(3600) == 1
    assert fresh.exists()
    assert not stale.exists()


def test_a_card_is_parsed_once_and_again_when_it_is_another(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(20):
        stage(tmp_path / "shipped" / "tiny" / f"v{index}", variant=f"v{index}")
    registry.variants()
    read = []
    whole = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path.parent.name) or whole(path))
    for _ in range(3):
        assert len(registry.variants()) == 21
    assert read == []
    path = tmp_path / "shipped" / "tiny" / "v7" / "card.json"
    replaced = path.with_suffix(".new")
    replaced.write_text(path.read_text().replace('"quantized_layers":1', '"quantized_layers":2'))
    replaced.rename(path)
    read.clear()
    assert sum(item.card.quantized_layers for item in registry.variants()) == 22
    assert read == ["v7"]


def test_a_card_without_end_is_not_read(registry: Registry, tmp_path: Path) -> None:
    folder = stage(tmp_path / "shipped" / "tiny" / "huge", variant="huge")
    os.truncate(folder / "card.json", 300 * 2**20)
    with pytest.raises(RegistryError, match="larger"):
        registry.get("tiny", "huge")
    assert [item.card.variant for item in registry.variants()] == ["shipped-one"]
