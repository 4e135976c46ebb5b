"""The release before this one beside this one, on one store: an upgrade that nobody notices, gateway first."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from contract.places import ROOT
from tests.releases.record import CALIBRATION, EVALUATION, SHORT, make_world
from tests.support.service import SHORT_TIMES, Process, until
from tests.support.valkey import Valkey

COMMITS = {"0.1.0": "cf6db60", "0.2.0": "827901d"}
"""The releases that may run beside this one."""

MEDIUM = {**SHORT, "num_inference_steps": 60, "num_images": 4}
"""Long enough to be in flight while the parts change."""

ALL = ["--queues", "generate", "--queues", "calibrate", "--queues", "evaluate"]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=COMMITS)
def old(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code of that release, out of the history."""
    folder = tmp_path_factory.mktemp("release")
    archive = subprocess.run(["git", "archive", COMMITS[request.param]], cwd=ROOT, capture_output=True, check=False)
    assert archive.returncode == 0, "the history is not here: fetch it whole"
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")
    return folder


class Parts:
    """Gateways and workers of either release on one broker and one data folder."""

    def __init__(self, folder: Path, broker: str, running: ExitStack) -> None:
        data = {"FACSIMILE_REDIS_URL": broker, "FACSIMILE_DATA_DIR": str(folder / "data")}
        self._env = {**make_world(folder / "world"), **SHORT_TIMES, **data}
        self._running = running

    def start(self, code: Path, *arguments: str) -> Process:
        process = Process(list(arguments), {**self._env, "PYTHONPATH": str(code)}, folder=code)
        self._running.callback(process.stop)
        return process

    def gateway(self, code: Path) -> tuple[Process, httpx.Client]:
        process = self.start(code, "app", "gateway")
        found = until(lambda: [x for x in process.output.splitlines() if x.startswith("listening: ")], "an address")
        return process, httpx.Client(base_url=found[0].removeprefix("listening: "), timeout=90)


@contextmanager
def parts(folder: Path) -> Iterator[Parts]:
    with ExitStack() as running, Valkey() as broker:
        yield Parts(folder, broker.url, running)


def asked(http: httpx.Client, method: str, path: str, **more: Any) -> dict[str, Any]:
    answer = http.request(method, path, **more)
    assert answer.status_code < 500, answer.text
    return dict(answer.json())


def submit(http: httpx.Client, kind: str, **body: Any) -> str:
    job = asked(http, "POST", f"/v1/{kind}", json={"model": "tiny", **body})
    assert "links" in job, job
    return str(job["links"]["self"])


def ended(http: httpx.Client, job: str) -> str:
    return str(until(lambda: (seen := asked(http, "GET", job))["finished_at"] and seen["status"], f"the end of {job}"))


def test_this_gateway_before_that_worker_does_every_kind_of_job(old: Path, tmp_path: Path) -> None:
    with parts(tmp_path) as made:
        _, http = made.gateway(ROOT)
        made.start(old, "worker", *ALL)
        until(lambda: http.get("/readyz").status_code == 200, "readiness")
        assert asked(http, "GET", "/v1/models")["data"][0]["id"] == "tiny"
        assert ended(http, submit(http, "generations", **SHORT)) == "succeeded"
        assert ended(http, submit(http, "calibrations", **CALIBRATION)) == "succeeded"
        of_variant = {**SHORT, "variant": "w8a8-minmax"}
        kinds = {"generations": {**of_variant, "score": True}, "comparisons": of_variant, "evaluations": EVALUATION}
        jobs = [submit(http, kind, **body) for kind, body in kinds.items()]
        assert [ended(http, job) for job in jobs] == ["succeeded"] * 3
        for kind in ("generations", "comparisons", "calibrations", "evaluations"):
            assert asked(http, "GET", f"/v1/{kind}")["data"]
        assert http.get("/metrics").status_code == 200


def test_an_upgrade_with_jobs_in_flight_loses_none(old: Path, tmp_path: Path) -> None:
    with parts(tmp_path) as made:
        first_gateway, http = made.gateway(old)
        first_worker = made.start(old, "worker", *ALL)
        until(lambda: http.get("/readyz").status_code == 200, "readiness")
        assert ended(http, submit(http, "calibrations", **CALIBRATION)) == "succeeded"
        bodies = {
            "generations": MEDIUM, "comparisons": {**SHORT, "variant": "w8a8-minmax"}, "evaluations": EVALUATION,
            "calibrations": {**CALIBRATION, "variant": "second"},
        }  # fmt: skip
        jobs = [submit(http, kind, **body) for kind, body in bodies.items()]
        first_gateway.stop()
        _, http = made.gateway(ROOT)
        jobs += [submit(http, "generations", **SHORT) for _ in range(3)]
        first_worker.stop()
        made.start(ROOT, "worker", *ALL)
        jobs += [submit(http, "generations", **SHORT) for _ in range(3)]
        failed = {job: asked(http, "GET", job)["error"] for job in jobs if ended(http, job) != "succeeded"}
        assert not failed
        listed = asked(http, "GET", "/v1/generations", params={"limit": 100})["data"]
        assert len(listed) == 7, "one was lost, or done twice"


def test_python_runs_the_code_that_is_meant(old: Path) -> None:
    line = "import contract.settings as s; print(s.__file__)"
    found = subprocess.run(
        [sys.executable, "-c", line], cwd=old, env={**os.environ, "PYTHONPATH": str(old)}, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    assert found.stdout.startswith(str(old))
