from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.broker import WORKER_TIMEOUTS
from contract.catalogue import Catalogue
from contract.images import ImageStore
from contract.job_store import JobStore
from contract.registry import Registry
from contract.reports import ReportStore
from tests.support.submissions import QUEUE
from tests.support.valkey import Valkey
from worker.lease import Patience
from worker.pipeline_cache import PipelineCache
from worker.runtime import Runtime
from worker.settings import WorkerSettings


@pytest.fixture
def runtime(valkey: Valkey, tmp_path: Path) -> Iterator[Runtime]:
    """A worker without models, on an empty store."""
    valkey.client.flushall()
    settings = WorkerSettings(redis_url=valkey.url, data_dir=tmp_path, poll_seconds=0.05)
    registry = Registry(tmp_path / "shipped", tmp_path)
    runtime = Runtime(
        name="worker",
        settings=settings,
        device="cpu",
        queues=(QUEUE,),
        store=JobStore(valkey.url, WORKER_TIMEOUTS),
        images=ImageStore(tmp_path / "images"),
        registry=registry,
        reports=ReportStore(tmp_path / "reports"),
        catalogue=Catalogue(models={}, methods={}, families=(), metrics=(), schedulers=(), presets={}, prompt_sets=()),
        pipelines=PipelineCache({}, registry, device="cpu", capacity=2),
        patience=Patience(stall_seconds=60, drain_seconds=0),
    )
    yield runtime
    runtime.store.close()
