"""The cap on what is used of the processor."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from contract.places import ROOT
from quant.engine import processor
from quant.errors import KernelError

SAYS = """
import sys
import quant
import torch
assert not quant.engine.processor.LATE
from quant.engine import native
from quant.engine.selection import select
print(native.status(), native.has_tiles(), select().reasons, sep="\\n")
torch.nn.functional.conv2d(torch.randn(1, 16, 9, 9), torch.randn(16, 16, 3, 3))
"""


def _run(cap: str, *command: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {processor.VARIABLE: cap, "ONEDNN_VERBOSE": "1"}
    folder = ROOT
    return subprocess.run(
        [sys.executable, *command], env=environment, cwd=folder, capture_output=True, text=True, check=False
    )


def test_a_cap_holds_for_onednn_and_for_native_kernels() -> None:
    done = _run("avx2", "-c", SAYS)
    assert done.returncode == 0, done.stderr
    assert f"{processor.VARIABLE} is avx2" in done.stdout and "\nFalse\n" in done.stdout
    assert "capped: FACSIMILE_MAX_CPU_ISA is avx2" in done.stdout
    isa = next(line for line in done.stdout.splitlines() if "cpu,isa:" in line)
    assert "AVX2" in isa and "512" not in isa


def test_a_wrong_cap_is_one_clear_line() -> None:
    done = _run("sse9", "-m", "facsimile", "engine")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    said = " ".join(done.stderr.split())
    assert "kernel-unavailable: FACSIMILE_MAX_CPU_ISA is 'sse9': it can be avx2, avx512_vnni, avx512_bf16, amx" in said


@pytest.mark.parametrize("cap", ["", *processor.LEVELS])
def test_a_cap_allows_what_is_not_above_it(cap: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "CAP", cap)
    levels = list(processor.LEVELS)
    reach = len(levels) if not cap else levels.index(cap) + 1
    assert [processor.allows(level) for level in levels] == [True] * reach + [False] * (len(levels) - reach)
    assert (processor.describe() is None) == (not cap)


@pytest.mark.parametrize("cap", ["AVX2", "avx512", "none", "0", "amx "])
def test_other_values_are_refused(cap: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "CAP", cap)
    for call in (processor.check, lambda: processor.allows("avx2")):
        with pytest.raises(KernelError, match="avx2, avx512_vnni, avx512_bf16, amx"):
            call()
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    processor.cap_onednn()
    assert "ONEDNN_MAX_CPU_ISA" not in os.environ


@pytest.mark.parametrize("cap", processor.LEVELS)
def test_onednn_gets_its_own_name_and_a_late_import_is_told(cap: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "CAP", cap)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "DEFAULT")
    monkeypatch.setattr(processor, "LATE", False)
    processor.cap_onednn()
    assert os.environ["ONEDNN_MAX_CPU_ISA"] == processor.LEVELS[cap]
    monkeypatch.setattr(processor, "LATE", True)
    with pytest.warns(RuntimeWarning, match="torch was imported before quant"):
        processor.cap_onednn()
    assert "torch was imported first" in str(processor.describe())
