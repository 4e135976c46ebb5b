"""What pyproject.toml cannot say: the wheel carries recipes and prompts, which a checkout has beside the packages."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = ("recipes", "prompts")


class BuildWithShippedFiles(build_py):
    """Copies them to where `contract.places` finds them."""

    def run(self) -> None:
        """As of every build of packages."""
        super().run()
        if not self.editable_mode:
            for name in SHIPPED:
                target = Path(self.build_lib) / "facsimile" / "shipped" / name
                shutil.copytree(name, target, dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithShippedFiles})
