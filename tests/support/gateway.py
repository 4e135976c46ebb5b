"""A gateway on an empty data folder, whose only worker is announced and pretends."""

from __future__ import annotations

from pathlib import Path

from app.settings import GatewaySettings
from contract.announcements import Announcement, LoadedPipeline, announce
from contract.broker import WORKER_TIMEOUTS
from contract.catalogue import Catalogue, ModelDescription
from contract.job_store import JobStore
from contract.recipe import Recipe
from contract.stages import Stages
from tests.support.cards import stage
from tests.support.valkey import Valkey

CATALOGUE = Catalogue(
    models={
        "tiny": ModelDescription(
            family="stable_diffusion",
            source="/secret/place",
            width=64,
            height=64,
            max_width=128,
            max_height=128,
            num_inference_steps=2,
            guidance_scale=3.0,
        )
    },
    methods={"minmax": Stages()},
    families=("stable_diffusion",),
    metrics=("psnr",),
    schedulers=("ddim", "euler"),
    presets={"minmax-w8a8": Recipe(method="minmax")},
    prompt_sets=("tiny-prompts",),
)
ANNOUNCEMENT = Announcement(
    worker="w",
    queues=("generate.tiny", "calibrate", "evaluate"),
    device="cpu",
    catalogue=CATALOGUE,
    loaded=(LoadedPipeline(model="tiny", variant="reference", digest=None, resident_bytes=1),),
)
GENERATION = {"model": "tiny", "prompt": "a red cube"}
COMPARISON = {"model": "tiny", "prompt": "a red cube", "variant": "shipped-one"}
CALIBRATION = {"model": "tiny", "recipe": "minmax-w8a8", "prompts": "tiny-prompts"}
EVALUATION = {"model": "tiny", "prompt_sets": ["tiny-prompts"]}


def connect(valkey: Valkey) -> JobStore:
    """The worker's view of an empty store; a worker that makes pictures has announced itself."""
    valkey.client.flushall()
    store = JobStore(valkey.url, WORKER_TIMEOUTS)
    store.run(announce(ANNOUNCEMENT))
    return store


def make_settings(folder: Path) -> GatewaySettings:
    """A gateway on an empty data folder, with one shipped variant."""
    stage(folder / "shipped" / "tiny" / "shipped-one", variant="shipped-one")
    return GatewaySettings(
        data_dir=folder / "data", variants=folder / "shipped", ui=False, open_jobs=20, allowed_hosts=("testserver",)
    )
