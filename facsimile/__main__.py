"""The command `facsimile`: quantize a model, draw with it, say how faithful it is, and serve it.

The only file that imports the service and the library. Each command imports what it needs when it runs, so that help
and refusals are immediate."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.text import Text

from contract.errors import ContractError
from contract.places import ROOT
from quant.cli.bench import bench
from quant.cli.compare import compare
from quant.cli.engine import engine
from quant.cli.generate import generate
from quant.cli.models import models
from quant.cli.quantize import quantize
from quant.errors import QuantError, first_line

EXIT_REFUSED = 2
LIBRARIES = ("diffusers", "torch", "transformers")
"""What the extra `library` brings first of all."""

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


class _Clear(typer.core.TyperGroup):
    """Says what was wrong in one line, with exit status 2, where the library refuses something."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (QuantError, ContractError) as error:
            cause = f" ({first_line(error.__cause__)})" if error.__cause__ else ""
            _refuse(error.code, f"{error}{cause}")
        except ModuleNotFoundError as error:
            if error.name not in LIBRARIES:
                raise
            _refuse("not-installed", f"{error.name} is missing: pip install 'facsimile-diffusion[library]'")


def _refuse(code: str, sentence: str) -> NoReturn:
    line = Text.assemble((code, "red"), f": {sentence}")
    Console(stderr=True).print(line, highlight=False, soft_wrap=True)
    sys.exit(EXIT_REFUSED)


@app.callback(cls=_Clear)
def main() -> None:
    """Quantized diffusion models: make them, draw with them, say how faithful they are."""


def serve() -> None:
    """Start broker, workers, gateway and web page, as `python -m app` does. FACSIMILE_* variables are its settings."""
    found = importlib.util.find_spec("app")
    if found is None or found.origin is None or Path(found.origin).parent != ROOT / "app":
        _refuse("no-service", "the service runs from a checkout or an image, not from the installed library")
    from app.__main__ import cli

    cli(args=[], prog_name="facsimile serve")


commands: tuple[Callable[..., None], ...] = (serve, quantize, generate, compare, bench, models, engine)
for command in commands:
    app.command()(command)

if __name__ == "__main__":
    app()
