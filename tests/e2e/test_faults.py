"""What must not be lost, whatever is killed."""

from __future__ import annotations

import os
import resource
import signal
from typing import Any

import pytest

from tests.support.service import Service, until

SHORT = {"prompt": "a red cube", "num_inference_steps": 2, "seed": 1}
LONG = {"prompt": "a red cube", "num_inference_steps": 150, "num_images": 8, "seed": 1}
RECIPE = {
    "method": "q_diffusion",
    "weight_bits": 4,
    "keep_float": ["conv_in", "conv_out", "time_embedding.*", "*.time_emb_proj"],
    "calibration": {"num_prompts": 2, "num_inference_steps": 4},
    "stages": {
        "inputs": {"kind": "all", "prompts": 2},
        "rounding": {"kind": "brecq", "iterations": 10, "batch": 4},
        "ranges": {"kind": "lsq", "iterations": 4},
    },
}


def test_cancel_while_queued_and_while_running(service: Service) -> None:
    running, queued = service.submit("generations", **LONG), service.submit("generations", **LONG)
    service.running(running)
    assert service.http.post(queued["links"]["cancel"]).json()["status"] == "canceled"
    service.http.post(running["links"]["cancel"])
    ended = service.ended(running)
    assert (ended["status"], ended["result"], ended["attempt"]) == ("canceled", None, 1)


def test_a_killed_worker_costs_an_attempt_not_the_job(service: Service) -> None:
    job = service.submit("generations", **{**LONG, "num_images": 1})
    service.running(job)
    os.kill(service.worker(), signal.SIGKILL)
    ended = service.ended(job)
    assert (ended["status"], ended["attempt"], len(ended["result"]["images"])) == ("succeeded", 2, 1)


@pytest.mark.slow
def test_a_calibration_whose_worker_is_killed_goes_on_to_the_same_checkpoint(service: Service) -> None:
    common = {"recipe": RECIPE, "prompts": "tiny-prompts"}
    units: set[str] = set()

    def finished() -> set[str]:
        return {path.name for path in (service.data / "calibrations").rglob("brecq-*.safetensors")}

    def ends(job: dict[str, Any]) -> bool:
        units.update(finished())
        return bool(service.look(job)["finished_at"])

    whole = service.submit("calibrations", **common, variant="whole")
    until(lambda: ends(whole), "the end of a calibration")
    half = service.submit("calibrations", **common, variant="half")
    until(lambda: len(finished()) >= len(units) / 2, "half of the units")
    os.kill(service.child("--queues calibrate"), signal.SIGKILL)
    before = finished()
    assert 0 < len(before) < len(units), "it was killed in the middle"
    whole, half = service.ended(whole), service.ended(half)
    assert (half["status"], half["attempt"]) == ("succeeded", 2), half["error"]
    assert half["result"]["card"]["digest"] == whole["result"]["card"]["digest"]


def test_a_token_that_dies_with_its_worker_costs_nothing(service: Service) -> None:
    assert service.ended(service.submit("generations", **SHORT))["status"] == "succeeded"
    worker = service.worker()
    os.kill(worker, signal.SIGSTOP)
    job = service.submit("generations", **SHORT)
    os.kill(worker, signal.SIGKILL)
    ended = service.ended(job)
    assert (ended["status"], ended["attempt"]) == ("succeeded", 1)


def test_a_worker_that_is_told_to_stop_puts_its_job_back(service: Service) -> None:
    job = service.submit("generations", **LONG)
    service.running(job)
    os.kill(service.worker(), signal.SIGTERM)
    until(lambda: service.look(job)["status"] == "queued", "the job's return")
    service.http.post(job["links"]["cancel"])
    assert service.ended(job)["status"] == "canceled"
    assert service.ended(service.submit("generations", **SHORT))["status"] == "succeeded"


def test_a_killed_broker_comes_back_with_its_jobs(service: Service) -> None:
    job = service.submit("generations", **{**LONG, "num_images": 1})
    service.running(job)
    os.kill(service.child("valkey-server"), signal.SIGKILL)
    until(lambda: service.http.get(job["links"]["self"]).status_code == 200, "the broker's return")
    assert service.ended(job)["status"] == "succeeded"


def test_a_full_disk_fails_the_job_and_not_the_worker(service: Service) -> None:
    worker = service.worker()
    until(lambda: service.http.get("/readyz").json()["ready"], "a worker")
    before = resource.prlimit(worker, resource.RLIMIT_FSIZE)
    resource.prlimit(worker, resource.RLIMIT_FSIZE, (1000, before[1]))
    full = service.ended(service.submit("generations", **{**SHORT, "seed": 99}))
    assert (full["status"], full["error"]["code"]) == ("failed", "storage-full")
    resource.prlimit(worker, resource.RLIMIT_FSIZE, before)
    assert service.ended(service.submit("generations", **{**SHORT, "seed": 99}))["status"] == "succeeded"
    assert service.worker() == worker
    assert not list((service.data / "images").rglob(".part-*"))
