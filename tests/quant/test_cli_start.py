"""The command line's help and refusals do not wait for torch, and its commands find the format registered."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from quant.cli.options import BACKBONES
from quant.fidelity.backbone import BACKBONE_FOLDER

GENERATE = ("generate", "--prompt", "x")


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("--help",), 0),
        *(((command, "--help"), 0) for command in ("quantize", "generate", "compare", "bench", "engine")),
        (("nothing",), 2),
        ((*GENERATE, "--model", "shapes-sd", "--seed", "-1"), 2),
        ((*GENERATE, "--model", "none"), 2),
        ((*GENERATE, "--model", "shapes-sd", "--variant", "none"), 2),
        (("compare", "--model", "shapes-sd", "--variant", "none"), 2),
        (("quantize", "--model", "shapes-sd", "--recipe", "none"), 2),
        (("bench", "--model", "none"), 2),
    ],
)
def test_help_and_refusals_import_nothing_heavy(arguments: tuple[str, ...], status: int) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "quant", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stderr[-2000:]
    imported = set(re.findall(r"\| +([a-z_]+)$", done.stderr, flags=re.MULTILINE))
    assert "typer" in imported
    assert not imported & {"torch", "diffusers", "transformers", "scipy"}


def test_import_quant_registers_the_format_whatever_runs() -> None:
    code = "import quant; from diffusers.quantizers.auto import AUTO_QUANTIZER_MAPPING as m; assert 'facsimile' in m"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_backbones_of_the_command_line_are_those_of_the_library() -> None:
    assert BACKBONES == BACKBONE_FOLDER
