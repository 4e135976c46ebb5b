"""A service of the embedded model for benchmarks that ask it as a user does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from benchmarks.shape import ROOT

MODEL = "shapes-sd"
PROMPT = "a small red metal cube left of a large blue matte ball, light floor"


@contextmanager
def service(folder: Path, dtype: str) -> Iterator[httpx.Client]:
    """A client of an all-in-one service whose model has this dtype; what it writes goes to `folder`."""
    table = tomllib.loads((ROOT / "models" / "models.toml").read_text(encoding="utf-8"))[MODEL]
    table |= {"source": str(ROOT / "models" / MODEL), "dtype": dtype}
    lines = [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    (folder / "models.toml").write_text("\n".join([f"[{MODEL}]", *lines]), encoding="utf-8")
    env = {
        "FACSIMILE_MODELS": str(folder / "models.toml"), "FACSIMILE_DATA_DIR": str(folder / "data"),
        "FACSIMILE_PORT": "0", "FACSIMILE_METRICS_PORT": "0", "FACSIMILE_UI": "false",
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "app"], cwd=ROOT, env=os.environ | env, stdout=subprocess.PIPE, text=True,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        with httpx.Client(base_url=_address(process), timeout=90) as http:
            yield http
    finally:
        process.terminate()
        process.wait(60)


def picture_seconds(http: httpx.Client, variant: str, steps: int) -> float:
    """Seconds from the POST to the answer that the picture is there. Raises RuntimeError when it failed."""
    body = {"model": MODEL, "variant": variant, "prompt": PROMPT, "seed": 7, "num_inference_steps": steps}
    start = time.perf_counter()
    answer = http.post("/v1/generations", json=body, headers={"Prefer": "wait=60"}).json()
    seconds = time.perf_counter() - start
    if answer["status"] != "succeeded":
        raise RuntimeError(str(answer["error"]))
    return seconds


def _address(process: subprocess.Popen[str]) -> str:
    for line in process.stdout or ():
        if line.startswith("ready: "):
            return line.removeprefix("ready: ").strip()
    raise RuntimeError(f"the service ended with status {process.wait()}")
