"""`python -m app` starts everything for one machine; `python -m app gateway` only the gateway."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack
from types import FrameType
from typing import NoReturn

import typer
from pydantic import ValidationError

from app.embedded_broker import EmbeddedBroker
from app.server import address, announce_when_ready, bind, serve
from app.settings import GatewaySettings
from app.supervisor import Supervisor, worker_child
from contract.errors import ContractError
from contract.logs import configure_logs
from contract.settings import explain

EXIT_CANNOT_START = 2
SERVED = (("generate",), ("calibrate", "evaluate"))
"""One worker process each. Calibrations and evaluations take hours, and one waits for the other, so that pictures share
the processor with one of them only."""

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


def _everything(settings: GatewaySettings) -> None:
    listener = bind(settings.host, settings.port)
    with ExitStack() as running:
        children, redis_url = [], settings.redis_url
        if redis_url is None:
            broker = running.enter_context(EmbeddedBroker(settings.data_dir))
            children, redis_url = [broker.child], broker.url
        for offset, queues in enumerate(SERVED):
            port = settings.metrics_port and settings.metrics_port + offset
            children.append(worker_child(queues, redis_url, port))
        running.enter_context(Supervisor(children, typer.echo))
        typer.echo("starting: the models are loaded first")
        announce_when_ready(address(listener), typer.echo)
        serve(settings, redis_url, listener)


def _gateway(settings: GatewaySettings) -> None:
    if settings.redis_url is None:
        raise ContractError("FACSIMILE_REDIS_URL: the gateway alone needs a broker, such as redis://localhost:6379/0")
    listener = bind(settings.host, settings.port)
    typer.echo(f"listening: {address(listener)}")
    serve(settings, settings.redis_url, listener)


def _guarded(start: Callable[[GatewaySettings], None]) -> None:
    os.umask(0o077)  # what people asked for, and what was drawn for them, is for this user only
    configure_logs("gateway")
    signal.signal(signal.SIGTERM, _exit)
    try:
        start(GatewaySettings())
    except ValidationError as error:
        _refuse(explain(error))
    except ContractError as error:
        _refuse(str(error))
    except KeyboardInterrupt:
        typer.echo("stopped")


def _refuse(reason: str) -> NoReturn:
    typer.echo(f"cannot start: {reason}", err=True)
    sys.exit(EXIT_CANNOT_START)


def _exit(signum: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    cli()
