"""`python -m app` starts everything for one machine; `python -m app gateway` only the gateway."""

from __future__ import annotations

import os
import secrets
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from socket import socket
from types import FrameType
from typing import Annotated, NoReturn

import typer
from pydantic import ValidationError

from app.api_keys import digest_of, parse_line
from app.embedded_broker import EmbeddedBroker
from app.server import address, announce_when_ready, bind, serve
from app.settings import GatewaySettings
from app.supervisor import Supervisor, worker_child
from contract.broker import Line
from contract.catalogue import read_models
from contract.errors import ContractError
from contract.folders import make_data_folder
from contract.logs import configure_logs
from contract.output import CapturedOutput
from contract.recipe import read_presets
from contract.settings import check_names, explain

EXIT_CANNOT_START = 2
SERVED = (
    tuple(line.value for line in Line if not line.background),
    tuple(line.value for line in Line if line.background),
)
"""One worker process each. Background jobs take hours, and one waits for the other, so that pictures share the
processor with one of them only."""

cli = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@cli.callback(invoke_without_command=True)
def everything(context: typer.Context) -> None:
    """Start a broker (unless FACSIMILE_REDIS_URL names one), the workers and the gateway."""
    if context.invoked_subcommand is None:
        _guarded(_everything)


@cli.command()
def gateway() -> None:
    """Start the gateway only; FACSIMILE_REDIS_URL names the broker."""
    _guarded(_gateway)


@cli.command()
def key(
    name: Annotated[str, typer.Argument(help="lower-case letters, digits and hyphens")],
    role: Annotated[str, typer.Option(help="user, calibrator or admin")] = "user",
    days: Annotated[int | None, typer.Option(min=1, help="how long it is valid; for ever if not given")] = None,
) -> None:
    """Make an API key: print it, and the line of FACSIMILE_API_KEYS_FILE that lets it in."""
    secret = secrets.token_urlsafe(24)
    last_day = f" expires={datetime.now(UTC).date() + timedelta(days=days)}" if days else ""
    line = f"{name} {role} {digest_of(secret)}{last_day}"
    try:
        parse_line(line, "key")
    except ContractError as error:
        typer.echo(f"{error}", err=True)
        sys.exit(EXIT_CANNOT_START)
    typer.echo(f"key, shown this once: {secret}\nline for the file:    {line}")


def _everything(settings: GatewaySettings, output: CapturedOutput) -> None:
    listener = bind(settings.host, settings.port)
    read_models(settings.models)
    read_presets(settings.recipes)
    make_data_folder(settings.data_dir)
    refused: list[str] = []
    try:
        _run(settings, output, listener, refused)
    except KeyboardInterrupt:
        if not refused:
            raise
    if refused:
        raise ContractError(f"the {refused[0]} cannot start; its last line in the log says why")


def _run(settings: GatewaySettings, output: CapturedOutput, listener: socket, refused: list[str]) -> None:
    with ExitStack() as running:
        children, redis_url = [], settings.redis_url
        if redis_url is None:
            broker = running.enter_context(EmbeddedBroker(settings.data_dir))
            children, redis_url = [broker.child], broker.url
        for offset, queues in enumerate(SERVED):
            port = settings.metrics_port and settings.metrics_port + offset
            children.append(worker_child(queues, redis_url, port))
        running.enter_context(Supervisor(children, typer.echo, refused.append))
        output.withhold()
        typer.echo("starting: the models are loaded first")
        announce_when_ready(address(listener), typer.echo)
        serve(settings, redis_url, listener)


def _gateway(settings: GatewaySettings, output: CapturedOutput) -> None:
    make_data_folder(settings.data_dir)
    if settings.redis_url is None:
        raise ContractError("FACSIMILE_REDIS_URL: the gateway alone needs a broker, such as redis://localhost:6379/0")
    listener = bind(settings.host, settings.port)
    output.withhold()
    typer.echo(f"listening: {address(listener)}")
    serve(settings, settings.redis_url, listener)


def _guarded(start: Callable[[GatewaySettings, CapturedOutput], None]) -> None:
    os.umask(0o077)  # what people asked for, and what was drawn for them, is for this user only
    output = CapturedOutput(stdout=False)
    configure_logs("gateway", output.stream)
    signal.signal(signal.SIGTERM, _exit)
    reason = None
    try:
        check_names(os.environ)
        start(GatewaySettings(), output)
    except ValidationError as error:
        reason = explain(error)
    except ContractError as error:
        reason = str(error)
    except KeyboardInterrupt:
        typer.echo("stopped")
    finally:
        output.close()
    if reason is not None:
        typer.echo(f"cannot start: {reason}", err=True)
        sys.exit(EXIT_CANNOT_START)


def _exit(signum: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    cli()
