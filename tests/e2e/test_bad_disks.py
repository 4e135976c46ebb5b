"""A data folder that is full or read-only for a while: jobs end with the reason or wait, and nothing is restarted."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.service import SHORT_TIMES, Process, Service, until
from tests.support.valkey import Valkey

PICTURE = {"prompt": "a red cube", "num_inference_steps": 2}
CALIBRATION = {"recipe": "tiny-w8a8", "prompts": "tiny-prompts"}
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a file system of its own"),
]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@contextmanager
def serving(world: dict[str, str], disk: Path, **more: str) -> Iterator[Service]:
    process = Process(["app"], {**world, **SHORT_TIMES, "FACSIMILE_DATA_DIR": str(disk / "data"), **more})
    try:
        yield Service(process, disk / "data")
    finally:
        process.stop()


@contextmanager
def full(disk: Path) -> Iterator[None]:
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 16))
        except OSError:
            pass
        try:
            while True:
                file.write(b"0")
        except OSError:
            pass
    try:
        yield
    finally:
        filler.unlink()


@contextmanager
def read_only(disk: Path) -> Iterator[None]:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)


def test_a_disk_that_is_full_for_a_while_loses_and_doubles_nothing(world: dict[str, str], disk: Path) -> None:
    with serving(world, disk) as service:
        worker = service.worker()
        jobs = [service.submit("generations", prompt="a red cube", num_inference_steps=40, seed=i) for i in range(4)]
        service.running(jobs[0])
        states: set[tuple[int, str | None]] = set()
        with full(disk):
            end = time.monotonic() + 20
            while time.monotonic() < end:
                answer = service.http.get("/readyz")
                states.add((answer.status_code, answer.json()["reason"]))
                refused = service.http.post("/v1/generations", json={"model": "tiny", **PICTURE, "seed": 99})
                assert refused.status_code in (202, 503)
                if refused.status_code == 202:
                    jobs.append(refused.json())
                time.sleep(1)
        freed = time.monotonic()
        until(lambda: service.http.get("/readyz").status_code == 200, "readiness")
        assert time.monotonic() - freed < 15
        assert service.worker() == worker, "it had to be restarted"
        ended = [service.ended(job) for job in jobs]
        assert {(job["status"], (job["error"] or {}).get("code")) for job in ended} <= {
            ("succeeded", None),
            ("failed", "storage-full"),
        }
        assert service.ended(service.submit("generations", **PICTURE))["status"] == "succeeded"
        figures = service.http.get("/metrics").text
        finished = sum(
            float(line.rpartition(" ")[2])
            for line in figures.splitlines()
            if line.startswith('facsimile_jobs_finished_total{kind="generation"')
        )
        assert finished == len(jobs) + 1
    assert any(status == 503 and reason and "disk" in reason for status, reason in states), states


def _made(service: Service, jobs: dict[str, dict[str, Any]]) -> dict[str, str | None]:
    """The code of every kind's failure, None for what succeeded."""
    ended = {kind: service.ended(service.submit(kind, **body)) for kind, body in jobs.items()}
    return {kind: (job["error"] or {}).get("code") for kind, job in ended.items()}


@pytest.mark.parametrize(("broken", "code"), [(full, "storage-full"), (read_only, "storage-unusable")])
def test_jobs_of_every_kind_say_what_is_wrong_with_the_disk(
    world: dict[str, str], disk: Path, broken: Any, code: str
) -> None:
    with Valkey() as broker, serving(world, disk, FACSIMILE_REDIS_URL=broker.url) as service:
        assert _made(service, {"calibrations": CALIBRATION}) == {"calibrations": None}
        of_variant = {**PICTURE, "variant": "w8a8-minmax"}
        jobs = {
            "generations": of_variant,
            "comparisons": of_variant,
            "evaluations": {"variants": ["w8a8-minmax"], "prompt_sets": ["tiny-prompts"]},
        }
        with broken(disk):
            again = {"calibrations": {**CALIBRATION, "variant": "second"}}
            assert _made(service, jobs | again) == dict.fromkeys(jobs | again, code)
        assert _made(service, jobs | {"calibrations": {**CALIBRATION, "variant": "third"}}) == dict.fromkeys(
            jobs | again, None
        )
        assert httpx.get(service.url + "/readyz").status_code == 200
