"""The README's commands, copied one after the other: each works, and leaves nothing where git would see it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.places import ROOT
from tests.support.service import Process, Service

SHOWN = "http://127.0.0.1:8000"
SMALLER = ((r'"limit": 64', '"limit": 2'), (r"--limit 64", "--limit 2"), (r"(facsimile quantize .*)", r"\1 --limit 2"))
"""The only changes: 64 prompts of a set take minutes, and show nothing that two do not."""

CURL = '#!/bin/sh\nexec {curl} --fail-with-body "$@"\n'
"""An answer that is no 2xx fails the line."""


def _blocks(language: str) -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout that has been set up, with a data folder of its own."""
    folder = tmp_path_factory.mktemp("checkout")
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in {line.partition("/")[0] for line in tracked.splitlines()}:
        (folder / name).symlink_to(ROOT / name)
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / "tools").mkdir()
    (folder / "tools" / "curl").write_text(CURL.format(curl=shutil.which("curl")))
    (folder / "tools" / "curl").chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def running(checkout: Path) -> Iterator[Service]:
    """What `make serve` starts, on a free port."""
    settings = {"FACSIMILE_PORT": "0", "FACSIMILE_METRICS_PORT": "0"}
    process = Process(["app"], settings, checkout)
    try:
        yield Service(process, checkout / "data")
    finally:
        process.stop()


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_the_commands_work_one_after_the_other(checkout: Path, running: Service) -> None:
    start, *blocks = _blocks("bash")
    assert [line.split("#")[0].split() for line in start.splitlines()] == [["make", "serve"], ["make", "test"]]
    assert len(blocks) == 5
    before = {path.name for path in checkout.iterdir()}
    took = [_run(block, checkout, running.url) for block in blocks]
    assert {path.name for path in checkout.iterdir()} == before, took
    picture = (checkout / "data" / "picture.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert list((checkout / "data" / "pictures").glob("*.png"))
    jobs = [running.http.get(f"/v1/{kind}").json()["data"] for kind in ("calibrations", "evaluations")]
    assert [job["status"] for (job,) in jobs] == ["succeeded"] * 2


@pytest.mark.slow
def test_the_python_works(checkout: Path) -> None:
    (code,) = _blocks("python")
    subprocess.run([checkout / ".venv/bin/python", "-c", code], cwd=checkout, check=True, timeout=240)


def test_git_ignores_what_the_commands_write() -> None:
    written = re.findall(r"(?:-o|tee|--output) (\S+)", "".join(_blocks("bash")))
    assert len(written) >= 4
    subprocess.run(["git", "check-ignore", "--no-index", *written], cwd=ROOT, check=True, capture_output=True)


def _run(block: str, folder: Path, url: str) -> float:
    """Runs a block as bash does, each command's status counted, and answers its seconds."""
    for large, small in SMALLER:
        block = re.sub(large, small, block)
    began = time.monotonic()
    script = f"set -euo pipefail\nPATH={folder / 'tools'}:$PATH\n{block.replace(SHOWN, url)}"
    done = subprocess.run(["bash", "-c", script], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{block}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return time.monotonic() - began
