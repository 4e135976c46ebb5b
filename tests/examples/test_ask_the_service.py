"""`examples/ask_the_service.py`, on the embedded model and a service of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from contract.places import ROOT
from tests.support.service import Process, Service


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_service_is_asked(tmp_path: Path) -> None:
    settings = {
        "FACSIMILE_PORT": "0",
        "FACSIMILE_METRICS_PORT": "0",
        "FACSIMILE_UI": "false",
        "FACSIMILE_DATA_DIR": str(tmp_path / "data"),
    }
    process = Process(["app"], settings, ROOT)
    try:
        service = Service(process, tmp_path / "data")
        command = [sys.executable, ROOT / "examples/ask_the_service.py", service.url, "shapes-sd", "w8a8-minmax"]
        done = subprocess.run([*command, tmp_path / "picture.png"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert float(done.stdout.split()[-2]) > 30
        assert Image.open(tmp_path / "picture.png").size == (128, 128)
    finally:
        process.stop()
