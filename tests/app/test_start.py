"""Starting the gateway: what it refuses, what it does without a broker, and what it never imports."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from app.settings import GatewaySettings
from contract.settings import NAMES
from tests.support.gateway import GENERATION
from tests.support.service import Process, until
from worker.settings import WorkerSettings

ALONE = {"FACSIMILE_UI": "false", "FACSIMILE_PORT": "0", "FACSIMILE_METRICS_PORT": "0"}
NO_BROKER = {"FACSIMILE_UI": "false", "FACSIMILE_PORT": "0", "FACSIMILE_REDIS_URL": "unix:///nowhere/valkey.sock"}

WITHOUT_TORCH = """
import sys
from importlib.abc import MetaPathFinder

class Forbidden(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in {"torch", "diffusers", "transformers", "quant", "worker"}:
            raise ImportError(f"{name} was imported")

sys.meta_path.insert(0, Forbidden())
import app.__main__
from app.application import create_app
from app.settings import GatewaySettings
create_app(GatewaySettings(ui=UI), "unix:///nowhere")
"""


def test_a_taken_port_is_named_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = Process(["app"], {"FACSIMILE_PORT": str(port), "FACSIMILE_DATA_DIR": str(tmp_path / "data")})
        assert process.wait() == 2
    assert f"127.0.0.1:{port}" in process.output
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"FACSIMILE_HOST": "0.0.0.0"}, "FACSIMILE_API_KEYS_FILE"),
        ({"FACSIMILE_API_KEYS_FILE": "/nowhere/keys"}, "/nowhere/keys"),
        ({"FACSIMILE_PORT": "many"}, "FACSIMILE_PORT"),
        ({"FACSIMILE_PROT": "8000"}, "did you mean FACSIMILE_PORT?"),
        ({"FACSIMILE_OPEN_JOB": "9"}, "did you mean FACSIMILE_OPEN_JOBS?"),
        ({"FACSIMILE_XYZ": "1"}, "there is no such setting"),
        ({"FACSIMILE_DATA_DIR": "/proc/nope"}, "the data folder /proc/nope cannot be written"),
        ({"FACSIMILE_REDIS_URL": ""}, "FACSIMILE_REDIS_URL"),
        ({"FACSIMILE_REDIS_URL": "localhost"}, "FACSIMILE_REDIS_URL"),
    ],
)
def test_settings_that_cannot_work_are_named(env: dict[str, str], words: str) -> None:
    process = Process(["app", "gateway"], {**NO_BROKER, **env})
    assert process.wait() == 2
    assert words in process.output
    assert "Traceback" not in process.output
    assert "Value error" not in process.output


@pytest.mark.parametrize(
    ("models", "words"),
    [
        (None, "No such file"),
        ("[SD15]\nfamily = 'stable_diffusion'\nsource = 'x'\n", "[SD15]: a name has 1 to 64 lower-case letters"),
        ("[m]\nfamily = 'stable_diffusion'\n", "[m] source: is missing"),
        ("[m]\nfamily = 'stable_diffusion'\nsource = 'x'\nrevision = 'y'\n", "[m] revision: there is no such field"),
        ("[m\n", "line 1"),
        ("", "it names no model"),
    ],
)
def test_a_models_file_that_cannot_be_used_is_one_line_and_no_restart(
    tmp_path: Path, models: str | None, words: str
) -> None:
    path = tmp_path / "models.toml"
    if models is not None:
        path.write_text(models)
    process = Process(["app"], {**ALONE, "FACSIMILE_MODELS": str(path), "FACSIMILE_DATA_DIR": str(tmp_path / "data")})
    assert process.wait() == 2
    assert words in process.output and str(path) in process.output
    assert "Traceback" not in process.output
    assert len(process.output.splitlines()) == 1


def test_a_worker_that_refuses_its_settings_ends_the_service_with_its_reason(tmp_path: Path) -> None:
    process = Process(["app"], {**ALONE, "FACSIMILE_DEVICE": "tpu", "FACSIMILE_DATA_DIR": str(tmp_path / "data")})
    assert process.wait() == 2
    assert "FACSIMILE_DEVICE" in process.output
    assert process.output.splitlines()[-1].startswith("cannot start: the worker")
    assert process.output.count("worker not started") <= 2, "it was started again and again"


def test_the_list_of_settings_is_that_of_the_classes() -> None:
    fields = {name.upper() for kind in (GatewaySettings, WorkerSettings) for name in kind.model_fields}
    assert fields | {"MAX_CPU_ISA"} == NAMES  # which the library reads by itself


def test_without_a_broker_the_gateway_lives_and_says_so() -> None:
    process = Process(["app", "gateway"], NO_BROKER)
    try:
        line = until(lambda: [x for x in process.output.splitlines() if x.startswith("listening: ")], "an address")
        with httpx.Client(base_url=line[0].removeprefix("listening: "), timeout=60) as http:
            assert http.get("/healthz").status_code == 200
            for answer in (http.post("/v1/generations", json=GENERATION), http.get("/v1/generations/x")):
                assert (answer.status_code, answer.json()["code"]) == (503, "broker-unavailable")
                assert int(answer.headers["retry-after"]) > 0
            assert "Umask:\t0077" in Path(f"/proc/{process.pid}/status").read_text()
            assert http.get("/readyz").json()["broker"] is False
            assert "facsimile_broker_up 0.0" in http.get("/metrics").text
    finally:
        assert process.stop() == 0


def test_a_broker_that_hangs_is_answered_for_in_time() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        process = Process(["app", "gateway"], {**NO_BROKER, "FACSIMILE_REDIS_URL": url})
        try:
            line = until(lambda: [x for x in process.output.splitlines() if x.startswith("listening: ")], "an address")
            with httpx.Client(base_url=line[0].removeprefix("listening: "), timeout=60) as http:
                http.get("/healthz")
                start = time.monotonic()
                answer = http.post("/v1/generations", json=GENERATION)
                assert (answer.status_code, answer.json()["code"]) == (503, "broker-unavailable")
                assert time.monotonic() - start < 3
        finally:
            process.stop()


@pytest.mark.parametrize("ui", [False, True])
def test_the_gateway_imports_nothing_heavy(ui: bool) -> None:
    program = WITHOUT_TORCH.replace("UI", str(ui))
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
