"""Loaded pipelines: the references and variants used last, and never a variant that is not the published one."""

from __future__ import annotations

import gc
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog

from contract.announcements import LoadedPipeline
from contract.card import Card
from contract.catalogue import ModelDescription
from contract.errors import RegistryError
from contract.payloads import REFERENCE
from contract.registry import Registry
from worker.metrics import MODEL_LOAD_SECONDS, RESIDENT_BYTES, expect_pipeline

Key = tuple[str, str]
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class LoadedModel:
    """A pipeline in memory, and the card of the variant that it is (None for a reference)."""

    pipeline: Any
    card: Card | None
    resident_bytes: int

    @property
    def digest(self) -> str | None:
        """The digest of the variant's checkpoint."""
        return self.card.digest if self.card else None


class PipelineCache:
    """At most `capacity` pipelines; the one unused longest makes room. One job at a time may use it."""

    def __init__(self, models: dict[str, ModelDescription], registry: Registry, *, device: str, capacity: int) -> None:
        self._models = models
        self._registry = registry
        self._device = device
        self._capacity = capacity
        self._loaded: OrderedDict[Key, LoadedModel] = OrderedDict()
        self._lock = threading.Lock()
        for model in models:
            expect_pipeline(model, REFERENCE, None)
        for published in registry.variants():
            expect_pipeline(published.card.model, published.card.variant, published.card)

    def get(self, model: str, variant: str) -> LoadedModel:
        """The reference or a variant, loaded now if need be. Raises RegistryError for a variant that is not published,
        and what loading raises."""
        return self._reference(model) if variant == REFERENCE else self._variant(model, variant)

    def loaded(self) -> tuple[LoadedPipeline, ...]:
        """What is in memory, most recently used last."""
        with self._lock:
            held = list(self._loaded.items())
        return tuple(
            LoadedPipeline(model=model, variant=variant, digest=entry.digest, resident_bytes=entry.resident_bytes)
            for (model, variant), entry in held
        )

    def clear(self) -> None:
        """Forget every pipeline."""
        with self._lock:
            keys = list(self._loaded)
        for key in keys:
            self._drop(key)

    def _reference(self, model: str) -> LoadedModel:
        from quant.pipelines import load_reference

        if model not in self._models:
            raise RegistryError(f"this worker has no model {model}")
        return self._keep((model, REFERENCE), None, lambda: load_reference(self._models[model]))

    def _variant(self, model: str, variant: str) -> LoadedModel:
        from quant.pipelines import load_variant

        published = self._registry.get(model, variant)
        if published is None:
            raise RegistryError(f"{model} has no variant {variant} any more")
        return self._keep((model, variant), published.card, lambda: load_variant(published.folder))

    def _keep(self, key: Key, card: Card | None, load: Callable[[], Any]) -> LoadedModel:
        held = self._loaded.get(key)
        if held and held.card == card:
            with self._lock:
                self._loaded.move_to_end(key)
            return held
        self._drop(key)
        while len(self._loaded) >= self._capacity:
            self._drop(next(iter(self._loaded)))
        entry = self._load(key, card, load)
        with self._lock:
            self._loaded[key] = entry
        return entry

    def _load(self, key: Key, card: Card | None, load: Callable[[], Any]) -> LoadedModel:
        from quant.pipelines import resident_bytes

        expect_pipeline(*key, card)
        start = time.monotonic()
        pipeline = load()
        if self._device != "cpu":
            pipeline = pipeline.to(self._device)
        entry = LoadedModel(pipeline, card, resident_bytes(pipeline))
        seconds = time.monotonic() - start
        MODEL_LOAD_SECONDS.labels(*key).observe(seconds)
        RESIDENT_BYTES.labels(*key).set(entry.resident_bytes)
        _log.info("pipeline loaded", model=key[0], variant=key[1], seconds=round(seconds, 3))
        return entry

    def _drop(self, key: Key) -> None:
        with self._lock:
            if self._loaded.pop(key, None) is None:
                return
        RESIDENT_BYTES.remove(*key)
        gc.collect()
