"""The README's and the tutorials' blocks, copied one after the other: each works, and leaves nothing where git would
see it."""

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

PAGES = ("README.md", "docs/tutorial/serve.md", "docs/tutorial/library.md")
SHOWN = "http://127.0.0.1:8000"
SMALLER = (
    (r'"limit": 64', '"limit": 2'),
    (r"--limit 64", "--limit 2"),
    (r"limit=8", "limit=2"),
    (r"(facsimile quantize .*)", r"\1 --limit 2"),
)
"""The only changes: 64 prompts of a set take minutes, and show nothing that two do not."""

CURL = '#!/bin/sh\nexec {curl} --fail-with-body "$@"\n'
"""An answer that is no 2xx fails the line."""


def _blocks(page: str) -> list[tuple[str, str]]:
    """The language and the text of every block that a reader runs, but those that only start `make`."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.findall(r"^```(bash|python)\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    return [(language, block) for language, block in found if not block.startswith("make ")]


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
@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_work_one_after_the_other(page: str, checkout: Path, running: Service) -> None:
    before = {path.name for path in checkout.iterdir()}
    took = [_run(language, block, checkout, running.url) for language, block in _blocks(page)]
    assert {path.name for path in checkout.iterdir()} == before, took


@pytest.mark.slow
def test_the_blocks_have_made_what_the_pages_say(checkout: Path, running: Service) -> None:
    if not (checkout / "data" / "quantized").is_dir():
        pytest.skip("the blocks were not run before")
    for picture in ("picture.png", "quantized.png"):
        assert (checkout / "data" / picture).read_bytes().startswith(b"\x89PNG")
    assert list((checkout / "data" / "pictures").glob("*.png"))
    assert (checkout / "data" / "my-report" / "report.html").is_file()
    jobs = [running.http.get(f"/v1/{kind}").json()["data"] for kind in ("calibrations", "evaluations")]
    assert [job["status"] for (job,) in jobs] == ["succeeded"] * 2


def test_every_tutorial_is_run() -> None:
    assert {*PAGES[1:]} == {path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/tutorial/*.md")}
    assert [len(_blocks(page)) for page in PAGES] == [2, 4, 3]


def test_the_readme_starts_with_two_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    start = re.findall(r"^```bash\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)[0]
    assert [line.split("#")[0].split() for line in start.splitlines()] == [["make", "serve"], ["make", "test"]]


def test_git_ignores_what_the_blocks_write() -> None:
    blocks = "".join(block for page in PAGES for _, block in _blocks(page))
    written = re.findall(r"(?:-o|tee|--output) (\S+)", blocks) + re.findall(r'"(data/[^"]+)"', blocks)
    assert len(written) >= 8
    subprocess.run(["git", "check-ignore", "--no-index", *written], cwd=ROOT, check=True, capture_output=True)


def _run(language: str, block: str, folder: Path, url: str) -> float:
    """Runs a block as bash or python does, each command's status counted, and answers its seconds."""
    for large, small in SMALLER:
        block = re.sub(large, small, block)
    began = time.monotonic()
    if language == "python":
        command = [str(folder / ".venv/bin/python"), "-c", block]
    else:
        script = f"set -euo pipefail\nPATH={folder / 'tools'}:$PATH\n{block.replace(SHOWN, url)}"
        command = ["bash", "-c", script]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{block}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return time.monotonic() - began
