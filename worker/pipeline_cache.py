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

RETRY_SECONDS = 30.0
"""Between two tries to load a model that could not be loaded."""

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
        self._unusable: dict[str, float] = {}
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

    def unusable(self) -> tuple[str, ...]:
        """The models whose reference could not be loaded the last time."""
        with self._lock:
            return tuple(sorted(self._unusable))

    def try_again(self) -> None:
        """Load one model that could not be loaded, if its last try is long enough ago: its folder may be back."""
        now = time.monotonic()
        with self._lock:
            due = [model for model, tried in self._unusable.items() if now - tried >= RETRY_SECONDS]
        for model in due[:1]:
            try:
                self.get(model, REFERENCE)
            except Exception as error:  # as when a job asks for it, which is told the reason
                _log.warning("model still unusable", model=model, error=type(error).__name__)

    def clear(self) -> None:
        """Forget every pipeline."""
        with self._lock:
            keys = list(self._loaded)
        for key in keys:
            self._drop(key)

    def _reference(self, model: str) -> LoadedModel:
        from quant.checkpoints.pipelines import load_reference

        if model not in self._models:
            raise RegistryError(f"this worker has no model {model}")
        try:
            loaded = self._keep((model, REFERENCE), None, lambda: load_reference(self._models[model]))
        except Exception:
            with self._lock:
                self._unusable[model] = time.monotonic()
            raise
        with self._lock:
            self._unusable.pop(model, None)
        return loaded

    def _variant(self, model: str, variant: str) -> LoadedModel:
        from quant.checkpoints.pipelines import load_variant

        published = self._registry.get(model, variant)
        if published is None:
            raise RegistryError(f"{model} has no variant {variant} any more")
        return self._keep((model, variant), published.card, lambda: load_variant(published.folder, self._dtype(model)))

    def _dtype(self, model: str) -> str:
        """A variant computes in its model's dtype; float32 for one whose model is not served here."""
        return self._models[model].dtype if model in self._models else "float32"

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
        from quant.checkpoints.pipelines import resident_bytes

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
