from __future__ import annotations

import shutil
import sys
import types
from pathlib import Path

import pytest

from contract.catalogue import ModelDescription
from contract.errors import RegistryError
from contract.registry import Registry
from tests.support.cards import card, stage
from worker.pipeline_cache import PipelineCache


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what is loaded, in place of loading it."""
    loads: list[str] = []
    fake = types.ModuleType("quant.checkpoints.pipelines")
    fake.load_reference = lambda model: loads.append(model.source) or object()  # type: ignore[attr-defined]
    fake.load_variant = lambda folder, dtype: loads.append(folder.name) or object()  # type: ignore[attr-defined]
    fake.resident_bytes = lambda pipeline: 10  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "quant", types.ModuleType("quant"))
    monkeypatch.setitem(sys.modules, "quant.checkpoints.pipelines", fake)
    return loads


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = Registry(tmp_path / "shipped", tmp_path)
    for variant in ("one", "two"):
        registry.publish(stage(registry.stage(variant), variant=variant))
    return registry


@pytest.fixture
def cache(registry: Registry) -> PipelineCache:
    models = {"tiny": ModelDescription(family="stable_diffusion", source="tiny-folder")}
    return PipelineCache(models, registry, device="cpu", capacity=2)


def test_what_was_used_longest_ago_makes_room(cache: PipelineCache, loads: list[str]) -> None:
    for name in ("reference", "one", "reference", "two", "reference", "one"):
        cache.get("tiny", name)
    assert loads == ["tiny-folder", "one", "two", "one"]
    assert [item.variant for item in cache.loaded()] == ["reference", "one"]


def test_a_replaced_variant_is_loaded_again(cache: PipelineCache, loads: list[str], registry: Registry) -> None:
    published = registry.get("tiny", "one")
    assert published is not None
    assert cache.get("tiny", "one").digest == "0" * 64
    replaced = card(variant="one").model_copy(update={"digest": "1" * 64})
    (published.folder / "card.json").write_text(replaced.model_dump_json())
    assert cache.get("tiny", "one").digest == "1" * 64
    assert loads == ["one", "one"]


def test_what_is_gone_is_named(cache: PipelineCache, loads: list[str], registry: Registry) -> None:
    published = registry.get("tiny", "one")
    assert published is not None
    shutil.rmtree(published.folder)
    for model, variant in (("tiny", "one"), ("other", "reference")):
        with pytest.raises(RegistryError):
            cache.get(model, variant)
    cache.clear()
    assert cache.loaded() == ()
