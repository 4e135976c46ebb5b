"""What earlier releases wrote is read by this one: their store, their announcements, their variants."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.application import create_app
from app.settings import GatewaySettings
from contract.announcements import RollCall, census
from contract.broker import WORKER_TIMEOUTS
from contract.job_store import JobStore
from contract.jobs import JobState
from contract.registry import Registry
from contract.transitions import claim, find, reap
from quant.checkpoints.pipelines import load_variant
from quant.sampling.generation import generate
from quant.sampling.request import Sampling
from tests.support.valkey import Valkey

RELEASES = sorted(path.name for path in Path(__file__).parent.glob("*.*.*"))
FOLDER = Path(__file__).parent


@pytest.fixture(params=RELEASES)
def release(request: pytest.FixtureRequest) -> Path:
    return FOLDER / str(request.param)


@pytest.fixture
def written(release: Path) -> dict[str, Any]:
    return dict(json.loads((release / "store.json").read_text()))


@pytest.fixture
def valkey(release: Path) -> Iterator[Valkey]:
    """A broker that starts on the append-only file of the release."""
    with Valkey(append_only=release / "appendonlydir") as server:
        yield server


def jobs_of(written: dict[str, Any]) -> dict[str, dict[str, str]]:
    return {key.removeprefix("facsimile:job:"): job for key, job in written.items() if key.startswith("facsimile:job:")}


def test_the_record_holds_every_kind_and_state(written: dict[str, Any]) -> None:
    jobs = jobs_of(written).values()
    assert {job["kind"] for job in jobs} == {"generation", "comparison", "calibration", "evaluation"}
    assert {job["state"] for job in jobs} == set(JobState)


def test_every_record_is_read_from_the_append_only_file(valkey: Valkey, written: dict[str, Any]) -> None:
    store = JobStore(valkey.url, WORKER_TIMEOUTS)
    jobs = jobs_of(written)
    assert len(jobs) > 10
    for name, fields in jobs.items():
        record = store.run(find(name))
        assert (record.id, record.state, record.kind) == (name, fields["state"], fields["kind"])
        assert (record.result is not None) == (record.state is JobState.SUCCEEDED)
    assert store.run(census()).open_jobs == sum(not JobState(job["state"]).terminal for job in jobs.values())
    store.close()


def test_what_it_announced_is_read(valkey: Valkey, written: dict[str, Any]) -> None:
    store = JobStore(valkey.url, WORKER_TIMEOUTS)
    now = float(valkey.client.time()[0])
    workers = list(valkey.client.hgetall("facsimile:workers"))
    valkey.client.zadd("facsimile:beats", dict.fromkeys(workers, now))
    roll = store.run(RollCall().call())
    assert {heard.announcement.worker for heard in roll.heard} == set(workers) != set()
    assert roll.catalogue is not None and "tiny" in roll.catalogue.models
    assert roll.serves("generate.tiny")
    store.close()


def test_waiting_jobs_are_claimed_and_running_ones_given_back(valkey: Valkey, written: dict[str, Any]) -> None:
    store = JobStore(valkey.url, WORKER_TIMEOUTS)
    store.run(reap(resend_seconds=1))  # the leases of the workers of then ended long ago
    open_jobs = {name for name, job in jobs_of(written).items() if not JobState(job["state"]).terminal}
    running = {name for name, job in jobs_of(written).items() if job["state"] == "running"}
    ended = {name for name in running if store.run(find(name)).state.terminal}  # past their deadline
    queues = ["generate.tiny", "calibrate", "evaluate"]
    claimed = set()
    while record := store.run(claim(queues, "now")):
        claimed.add(record.id)
    assert claimed | ended == open_jobs
    store.close()


def test_the_gateway_answers_for_all_of_it(
    valkey: Valkey, release: Path, written: dict[str, Any], tmp_path: Path
) -> None:
    shutil.copytree(release / "variants", tmp_path / "variants")
    settings = GatewaySettings(data_dir=tmp_path, variants=tmp_path / "shipped", ui=False)
    with TestClient(create_app(settings, valkey.url), base_url="http://127.0.0.1") as client:
        for name, job in jobs_of(written).items():
            answer = client.get(f"/v1/{job['kind']}s/{name}")
            assert (answer.status_code, answer.json()["id"]) == (200, name)
        for kind in ("generation", "comparison", "calibration", "evaluation"):
            listed = client.get(f"/v1/{kind}s", params={"limit": 100}).json()["data"]
            assert {job["id"] for job in listed} == {
                name for name, job in jobs_of(written).items() if job["kind"] == kind
            }
        assert client.get("/v1/variants").json()["data"][0]["variant"] == "w8a8-minmax"
        for path in ("/metrics", "/v1/models", "/v1/catalogue", "/readyz"):
            assert client.get(path).status_code in (200, 503)


def test_its_variant_is_loaded_and_draws(release: Path, tmp_path: Path) -> None:
    published = Registry(release / "variants", tmp_path).get("tiny", "w8a8-minmax")
    assert published is not None
    pipeline = load_variant(published.folder)
    drawn = generate(pipeline, Sampling("a red cube", num_inference_steps=2, width=64, height=64, seed=7))
    assert drawn.pictures[0].size == (64, 64)
