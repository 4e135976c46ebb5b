"""`python -m worker --queues generate`: a worker process. One runs per device; calibrations and evaluations, which take
long, have their own."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import structlog
import typer
from celery.signals import worker_shutting_down
from pydantic import ValidationError

from contract.broker import Line
from contract.errors import ContractError
from contract.logs import adopt_loggers, configure_logs
from contract.output import CapturedOutput
from contract.settings import check_names, explain
from worker.claims import ClaimLoop
from worker.compute import ComputeThread, yield_session
from worker.execution import execute
from worker.heartbeat import Heartbeat
from worker.metrics import serve_metrics
from worker.runtime import Runtime, start_runtime
from worker.settings import WorkerSettings
from worker.tasks import consume, make_celery
from worker.warm_up import warm_up

EXIT_SETTINGS = 2
_log = structlog.get_logger(__name__)


def main(
    queues: Annotated[list[Line], typer.Option(help="What to serve; may be repeated.")],
    metrics_port: Annotated[
        int | None, typer.Option(help="Where Prometheus scrapes; no exporter if not given.")
    ] = None,
    metrics_host: Annotated[str, typer.Option(help="The address of the exporter.")] = "0.0.0.0",
) -> None:
    """Serve queues until told to stop."""
    os.umask(0o077)
    output = CapturedOutput(stdout=True)
    configure_logs("worker", output.stream)
    background = all(line.background for line in queues)
    compute = ComputeThread(background=background)
    runtime = compute.run(lambda: _start(tuple(dict.fromkeys(queues))))
    if metrics_port is not None:
        serve_metrics(metrics_host, metrics_port)
    if background:
        yield_session()
    else:
        compute.run(lambda: warm_up(runtime))
    claims, heartbeat = ClaimLoop(runtime, execute, compute), Heartbeat(runtime)
    worker_shutting_down.connect(lambda **_: runtime.patience.draining.set(), weak=False)
    output.withhold()
    heartbeat.start()
    claims.start()
    _log.info("worker ready", queues=runtime.queues, device=runtime.device)
    exit_code = consume(make_celery(runtime.settings.redis_url, claims), runtime.name, runtime.queues)
    claims.stop()
    heartbeat.stop()
    runtime.store.close()
    output.close()
    raise typer.Exit(exit_code)


def _start(served: tuple[Line, ...]) -> Runtime:
    from quant.errors import QuantError

    adopt_loggers("diffusers", "transformers", "huggingface_hub")
    try:
        check_names(os.environ)
        return start_runtime(WorkerSettings(), served)
    except ValidationError as error:
        reason = explain(error)
    except (ContractError, QuantError) as error:
        reason = str(error)
    _log.critical("worker not started", reason=reason)
    sys.exit(EXIT_SETTINGS)


if __name__ == "__main__":
    typer.run(main)
