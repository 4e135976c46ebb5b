"""What a worker's parts share: the stores, the loaded pipelines, what its code offers."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

from contract.announcements import Announcement
from contract.broker import WORKER_TIMEOUTS, Line
from contract.catalogue import Catalogue, read_models
from contract.images import ImageStore
from contract.job_store import JobStore
from contract.registry import Registry
from contract.release import RELEASE
from contract.reports import ReportStore
from worker.lease import Patience
from worker.pipeline_cache import PipelineCache
from worker.settings import WorkerSettings


@dataclass(frozen=True)
class Runtime:
    """Made once, when the process starts."""

    name: str
    settings: WorkerSettings
    device: str
    queues: tuple[str, ...]
    store: JobStore
    images: ImageStore
    registry: Registry
    reports: ReportStore
    catalogue: Catalogue
    pipelines: PipelineCache
    patience: Patience

    def announcement(self) -> Announcement:
        """What this worker says about itself now."""
        return Announcement(
            worker=self.name,
            release=RELEASE,
            queues=self.queues,
            device=self.device,
            catalogue=self.catalogue,
            loaded=self.pipelines.loaded(),
            unusable=self.pipelines.unusable(),
        )


def start_runtime(settings: WorkerSettings, served: tuple[Line, ...]) -> Runtime:
    """A worker that serves one or more lines, each with the queues of all models. Raises ContractError and QuantError
    for unreadable models, recipes or prompts."""
    from quant.catalogue import catalogue
    from quant.engine.dtypes import resolved_dtype

    device = _device(settings.device)
    models = {
        name: model.model_copy(update={"dtype": resolved_dtype(model.dtype, device)})
        for name, model in read_models(settings.models).items()
    }
    registry = Registry(settings.variants, settings.data_dir)
    return Runtime(
        name=f"{socket.gethostname()}-{os.getpid()}",
        settings=settings,
        device=device,
        queues=tuple(dict.fromkeys(line.queue(model) for line in served for model in models)),
        store=JobStore(settings.redis_url, WORKER_TIMEOUTS),
        images=ImageStore(settings.data_dir / "images"),
        registry=registry,
        reports=ReportStore(settings.data_dir / "reports"),
        catalogue=catalogue(models, settings.recipes, settings.prompts),
        pipelines=PipelineCache(models, registry, device=device, capacity=settings.pipelines),
        patience=Patience(settings.stall_seconds, settings.drain_seconds),
    )


def _device(asked: str) -> str:
    import torch

    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return asked
