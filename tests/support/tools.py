"""Programs that some tests need beside Python."""

from __future__ import annotations

import os
import shutil

import pytest


def tool(name: str, package: str) -> str:
    """The path of a program. Without it the test is skipped; where TOOLS_REQUIRED is set it fails."""
    path = shutil.which(name)
    if path is None:
        reason = f"{name} is not installed (Debian's package {package})"
        if os.environ.get("TOOLS_REQUIRED"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path
