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
        *(
            ((command, "--help"), 0)
            for command in ("serve", "quantize", "generate", "compare", "bench", "models", "engine")
        ),
        (("nothing",), 2),
        ((*GENERATE, "shapes-sd", "--seed", "-1"), 2),
        ((*GENERATE, "none"), 2),
        ((*GENERATE, "shapes-sd", "--variant", "none"), 2),
        (("compare", "shapes-sd", "--variant", "none"), 2),
        (("quantize", "shapes-sd", "--recipe", "none"), 2),
        (("bench", "none"), 2),
        (("models",), 0),
    ],
)
def test_help_and_refusals_import_nothing_heavy(arguments: tuple[str, ...], status: int) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "facsimile", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stderr[-2000:]
    imported = set(re.findall(r"\| +([a-z_]+)$", done.stderr, flags=re.MULTILINE))
    assert "typer" in imported
    assert not imported & {"torch", "diffusers", "transformers", "scipy"}


def test_the_backbones_of_the_command_line_are_those_of_the_library() -> None:
    assert BACKBONES == BACKBONE_FOLDER
