"""`engine`: which integer engine this machine gets, and why."""

from __future__ import annotations

from typing import Annotated

import typer

from quant.cli.options import AsJson, machine, print_json, stdout


def engine(
    device: Annotated[str, typer.Option(help="cpu or cuda", show_default="cuda where there is one")] = "",
    as_json: AsJson = False,
) -> None:
    """Report the integer engine of this machine, the self-test's outcome, and the reason of every choice."""
    import torch

    from quant.engine.selection import select

    kind = device or ("cuda" if torch.cuda.is_available() else "cpu")
    selection = select(kind)
    if as_json:
        found = {"device": kind, "engine": selection.engine.name, "reasons": list(selection.reasons)}
        print_json(machine() | found)
        return
    stdout.print(f"{kind}: {selection.engine.name}")
    for reason in selection.reasons:
        stdout.print(f"  {reason}")
