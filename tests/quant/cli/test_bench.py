"""`facsimile bench`, run, killed and read as a user does."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from contract.places import ROOT
from facsimile.__main__ import app
from quant.sampling.seeds import EVALUATION_SEED
from tests.support.tiny_world import TinyWorld

PROMPTS = [f"a thing {letter}" for letter in "abcdefghijklmnopqr"]
Json = dict[str, Any]


def _arguments(tiny: TinyWorld, folder: Path, output: str, cache: str, *more: object) -> list[str]:
    prompts = folder / "own.txt"
    prompts.write_text("\n".join(PROMPTS), encoding="utf-8")
    fixed = ("bench", "tiny", "--models", tiny.models, "--variant-folder", tiny.variants)
    places = ("--prompts", prompts, "--output", folder / output, "--cache", folder / cache)
    return [str(argument) for argument in (*fixed, *places, *more)]


def _timeless(folder: Path) -> Json:
    document = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert document.pop("times")["seconds"] > 0
    return document


@pytest.fixture(scope="module")
def reported(tiny: TinyWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a report on all variants of the tiny model."""
    folder = tmp_path_factory.mktemp("bench")
    result = CliRunner().invoke(app, _arguments(tiny, folder, "report", "cache"), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "w4a8-minmax" in result.stdout and "report.html" in result.stdout.replace("\n", "")
    return folder / "report"


def test_the_json_has_the_documented_keys(reported: Path) -> None:
    document = _timeless(reported)
    for variant in ("w8a8-minmax", "w4a8-minmax"):
        low, high = document["variants"][variant]["own"]["ssim"]["ci95"]
        assert low <= document["variants"][variant]["own"]["ssim"]["mean"] <= high
        assert document["variants"][variant]["card"]["average_weight_bits"] == float(variant[1])
    assert document["floors"]["bfloat16"]["psnr"]["mean"] > document["floors"]["other_seeds"]["psnr"]["mean"]
    assert document["protocol"]["prompt_sets"]["own"]["count"] == 18
    page = (ROOT / "docs/qdiffbench.md").read_text(encoding="utf-8")
    for key in document:
        assert f"`{key}" in page or f"`{key}`" in page or key in ("format_version", "model", "times"), key


def test_the_page_holds_everything_itself(reported: Path) -> None:
    text = (reported / "report.html").read_text(encoding="utf-8")
    sources: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            assert tag not in ("script", "link", "iframe")
            sources.extend(value or "" for name, value in attributes if name in ("src", "href"))

    Reader().feed(text)
    outside = [source for source in sources if not source.startswith(("data:image/webp;base64,", "#"))]
    assert not outside and sum(source.startswith("data:") for source in sources) == 2 * 4 * 3
    drawings = re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)
    assert len(drawings) == 2
    for drawing in drawings:
        ET.fromstring(drawing)


def test_the_markdown_names_files_that_are_there(reported: Path) -> None:
    text = (reported / "report.md").read_text(encoding="utf-8")
    figures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)
    assert set(figures) == {"bars-own.svg", "trajectories-own.svg", "worst.webp"}
    assert all((reported / figure).stat().st_size > 1000 for figure in figures)
    assert Image.open(reported / "worst.webp").size == (64 * 6 + 8, 64 * 4)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in rows)
    assert str(ROOT) not in text and str(Path.home()) not in text


def test_a_prompt_cannot_write_into_the_page(tiny: TinyWorld, tmp_path: Path) -> None:
    arguments = _arguments(tiny, tmp_path, "report", "cache", "--variant", "w8a8-minmax", "--metric", "psnr")
    (tmp_path / "own.txt").write_text("<script>alert(1)</script> & 猫\n", encoding="utf-8")
    assert CliRunner().invoke(app, arguments).exit_code == 0
    page = (tmp_path / "report/report.html").read_text(encoding="utf-8")
    assert "<script>" not in page and "&lt;script&gt;alert(1)&lt;/script&gt; &amp; 猫" in page


@pytest.mark.slow
def test_a_killed_run_resumes_with_the_same_figures(tiny: TinyWorld, reported: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "facsimile", *_arguments(tiny, tmp_path, "report", "cache")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120.0
    while len(list(tmp_path.glob("cache/??/*.safetensors"))) < 9 and time.monotonic() < until:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and not list((tmp_path / "report").iterdir())
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert _timeless(tmp_path / "report") == _timeless(reported)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--variant", "nope"), "w4a8-minmax"),
        (("--metric", "beauty"), "psnr"),
        (("--metric", "lpips"), "lpips_alex"),
        (("--metric", "prompt_accuracy"), "128 x 128"),
        (("--real", "nowhere"), "0 pictures"),
        (("--limit", "0"), "greater than or equal to 1"),
        (("--seed", "4294967296"), "less than or equal to 4294967295"),
    ],
)
def test_what_cannot_be_measured_is_said(tiny: TinyWorld, tmp_path: Path, more: tuple[str, ...], message: str) -> None:
    result = CliRunner().invoke(app, _arguments(tiny, tmp_path, "report", "cache", *more))
    assert result.exit_code == 2
    assert message in re.sub(r"\s*[\n│]\s*", " ", result.stderr), result.stderr
    assert not (tmp_path / "report").exists()


def test_the_service_starts_from_the_same_seed() -> None:
    from app.request_bodies import EvaluationBody

    assert EvaluationBody.model_fields["seed"].default == EVALUATION_SEED
