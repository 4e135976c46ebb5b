"""The study that compares quantization methods: run what is not measured yet, or show what is.

`python -m benchmarks.methods`; `--table`, `--claims`, `--plots` and `--list` show results, and run nothing."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer
from rich.table import Table

from benchmarks.methods import plots
from benchmarks.methods.ablation import read_ablations
from benchmarks.methods.arms import all_arms
from benchmarks.methods.claims import Claim, Verdict, claims, claims_json
from benchmarks.methods.page import PAGES, PICTURES, fill
from benchmarks.methods.process import run_process
from benchmarks.methods.results import Standing, current, standings
from benchmarks.methods.show import display
from benchmarks.methods.study import Plan, conduct, plan, task_of
from benchmarks.methods.table import rich_table, sets_of, table
from benchmarks.methods.task import Places, Protocol
from benchmarks.result import AsJson, stderr, stdout
from quant.cli.options import describe, print_json
from quant.quantization.resolution import Resolution

COLOURS = {Verdict.CONFIRMED: "green", Verdict.NOT_CONFIRMED: "red", Verdict.NOT_MEASURED: "dim"}


def main(
    only: Annotated[list[str] | None, typer.Option(help="arms to run, as names or patterns, in this order")] = None,
    limit: Annotated[int, typer.Option(min=1, help="test prompts of each style")] = Protocol().limit,
    threads: Annotated[int, typer.Option(min=1, help="threads of every arm")] = 2,
    stale: Annotated[bool, typer.Option("--stale", help="make results anew whose recipe has changed")] = False,
    drop: Annotated[bool, typer.Option("--drop", help="remove each variant after its evaluation")] = False,
    show_list: Annotated[bool, typer.Option("--list", help="say where every arm stands")] = False,
    show_table: Annotated[bool, typer.Option("--table", help="print the figures")] = False,
    show_claims: Annotated[bool, typer.Option("--claims", help="print what is claimed, with the numbers")] = False,
    make_plots: Annotated[
        bool, typer.Option("--plots", help="draw docs/results, fill docs/results.md and its notes")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Calibrate and evaluate every arm that has no result yet, each in a process of its own."""
    protocol, places, ablations = Protocol(limit=limit), Places(), read_ablations()
    resolution = Resolution(describe(protocol.model, places.models))
    standing = standings(all_arms(places.recipes, ablations, resolution), places.results, protocol)
    if show_list:
        _list(standing, as_json=as_json)
    if show_table:
        _table(standing, as_json=as_json)
    if show_claims:
        _claims(claims(current(standing)), as_json=as_json)
    if make_plots:
        drawn = plots.draw(current(standing), ablations.groups, PICTURES)
        fill(standing, ablations.groups)
        stderr.print(f"{', '.join(map(str, PAGES))}; {len(drawn)} pictures in {PICTURES}")
    if not (show_list or show_table or show_claims or make_plots):
        _run(plan(standing, only or [], renew=stale), protocol, places, threads, drop=drop)


def _run(due: Plan, protocol: Protocol, places: Places, threads: int, *, drop: bool) -> None:
    _announce(due)
    tasks = [task_of(arm, protocol, places, drop=drop) for arm in due.todo]
    with display(len(tasks)) as shown:
        failures = conduct(tasks, partial(run_process, threads=threads, on_stage=shown.stage), shown.arm)
    for reason in failures.values():
        stderr.print(reason, style="red")
    stderr.print(f"{len(tasks) - len(failures)} of {len(tasks)} arms measured, results in {places.results}")
    raise typer.Exit(1 if failures else 0)


def _announce(due: Plan) -> None:
    for name, reason in due.missing.items():
        stderr.print(f"{name} is missing: {reason}", style="yellow")
    for name, reason in due.stale.items():
        stderr.print(f"{name} is stale ({reason}): --stale makes it anew", style="yellow")
    for name, other in due.same.items():
        stderr.print(f"{name} is the same as {other}", style="dim")
    stderr.print(
        f"{len(due.todo)} arms to run, {len(due.finished)} finished, {len(due.stale)} stale, {len(due.missing)} missing"
    )


def _list(standing: dict[str, Standing], *, as_json: bool) -> None:
    if as_json:
        print_json({name: {"state": s.state, "reason": s.reason, "same_as": s.same_as} for name, s in standing.items()})
        return
    shown = Table("arm", "state", "")
    for name, each in standing.items():
        shown.add_row(name, each.state, f"the same as {each.same_as}" if each.same_as else each.reason)
    stdout.print(shown)


def _table(standing: dict[str, Standing], *, as_json: bool) -> None:
    document = table(standing)
    if as_json:
        print_json(document)
        return
    for prompt_set in sets_of(document):
        stdout.print(rich_table(document, prompt_set))
    if not document:
        stdout.print("nothing is measured yet")


def _claims(found: list[Claim], *, as_json: bool) -> None:
    if as_json:
        print_json(claims_json(found))
        return
    shown = Table("claim", "verdict", "numbers", show_lines=True)
    for claim in found:
        shown.add_row(claim.sentence, f"[{COLOURS[claim.verdict]}]{claim.verdict}[/]", claim.evidence)
    stdout.print(shown)


if __name__ == "__main__":
    typer.run(main)
