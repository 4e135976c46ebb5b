"""`facsimile serve`: the service of a checkout, and one sentence where there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from contract.places import ROOT


def _serve(folder: Path, path: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(path), **settings}
    command = [sys.executable, "-m", "facsimile", "serve"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_without_the_service_it_says_where_that_is(tmp_path: Path) -> None:
    for package in ("contract", "facsimile", "quant"):
        shutil.copytree(ROOT / package, tmp_path / "library" / package, ignore=shutil.ignore_patterns("__pycache__"))
    done = _serve(tmp_path, tmp_path / "library")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "the service runs from a checkout or an image" in " ".join(done.stderr.split())


def test_another_package_called_app_is_not_started(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__init__.py").touch()
    (tmp_path / "app" / "__main__.py").write_text("raise SystemExit('started')")
    done = _serve(tmp_path, ROOT)
    assert done.returncode == 2 and "the service runs from a checkout" in " ".join(done.stderr.split())


def test_in_a_checkout_it_starts_what_python_m_app_does(tmp_path: Path) -> None:
    done = _serve(ROOT, ROOT, FACSIMILE_PORT="no-number", FACSIMILE_DATA_DIR=str(tmp_path))
    assert done.returncode == 2
    assert "cannot start: FACSIMILE_PORT" in done.stderr
