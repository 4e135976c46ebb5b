"""Models that go and come back, and the number type that they compute in."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import worker.pipeline_cache
from contract.catalogue import read_models
from contract.payloads import REFERENCE
from contract.registry import Registry
from quant.checkpoints.pipelines import denoiser_of
from quant.engine import processor
from quant.engine.dtypes import resolved_dtype
from quant.errors import ModelError
from tests.support.tiny_model import save_tiny_model
from worker.pipeline_cache import PipelineCache


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    save_tiny_model(tmp_path)
    yield tmp_path


def cache_of(place: Path) -> PipelineCache:
    registry = Registry(place / "shipped", place / "data")
    return PipelineCache(read_models(place / "models.toml"), registry, device="cpu", capacity=2)


@pytest.mark.parametrize("gone_at_start", [False, True])
def test_a_folder_that_was_away_is_found_again(
    place: Path, gone_at_start: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker.pipeline_cache, "RETRY_SECONDS", 0.0)
    if gone_at_start:
        shutil.move(place / "tiny", place / "away")
    cache = cache_of(place)
    if not gone_at_start:
        shutil.move(place / "tiny", place / "away")
    with pytest.raises(ModelError, match="no such folder"):
        cache.get("tiny", REFERENCE)
    assert cache.unusable() == ("tiny",)
    cache.try_again()
    assert cache.unusable() == ("tiny",)
    shutil.move(place / "away", place / "tiny")
    cache.try_again()
    assert cache.unusable() == ()
    assert cache.loaded()[0].model == "tiny"


def test_a_model_that_stays_away_is_not_tried_all_the_time(place: Path) -> None:
    shutil.rmtree(place / "tiny")
    cache = cache_of(place)
    with pytest.raises(ModelError):
        cache.get("tiny", REFERENCE)
    shutil.copytree(save_tiny_model(place / "elsewhere").parent / "tiny", place / "tiny")
    cache.try_again()
    assert cache.unusable() == ("tiny",)  # its last try was a moment ago


@pytest.mark.parametrize(("multiplies", "dtype"), [(True, "bfloat16"), (False, "float32")])
def test_auto_is_bfloat16_where_the_processor_multiplies_it(
    multiplies: bool, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor, "multiplies_bfloat16", lambda: multiplies)
    assert resolved_dtype("auto") == dtype
    assert resolved_dtype("float16") == "float16"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_a_reference_computes_in_its_models_dtype(place: Path, dtype: str) -> None:
    models = place / "models.toml"
    models.write_text(models.read_text() + f'dtype = "{dtype}"\n')
    pipeline = cache_of(place).get("tiny", REFERENCE).pipeline
    assert next(denoiser_of(pipeline).parameters()).dtype is getattr(torch, dtype)
