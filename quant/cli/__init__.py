"""The command line: one file per command, all of them added here."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import typer
from rich.console import Console
from rich.text import Text

from contract.errors import ContractError
from quant.cli.bench import bench
from quant.cli.compare import compare
from quant.cli.engine import engine
from quant.cli.generate import generate
from quant.cli.quantize import quantize
from quant.errors import QuantError, first_line

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


class _Clear(typer.core.TyperGroup):
    """Says what was wrong in one line, with exit code 2, where the library refuses something."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (QuantError, ContractError) as error:
            cause = f" ({first_line(error.__cause__)})" if error.__cause__ else ""
            line = Text.assemble((error.code, "red"), f": {error}{cause}")
            Console(stderr=True).print(line, highlight=False, soft_wrap=True)
            sys.exit(2)


@app.callback(cls=_Clear)
def main() -> None:
    """Quantized diffusion models: make them, draw with them, say how faithful they are."""


commands: tuple[Callable[..., None], ...] = (quantize, generate, compare, bench, engine)
for command in commands:
    app.command()(command)
