"""The gateway's figures: its own requests, and what the store counts about jobs and queues."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from contract.announcements import Census, Heard
from contract.broker import Line
from contract.jobs import JobState
from contract.kinds import JobKind

disable_created_metrics()  # type: ignore[no-untyped-call]
GATEWAY = CollectorRegistry()
ProcessCollector(registry=GATEWAY)
PlatformCollector(registry=GATEWAY)

REQUESTS = Counter("facsimile_http_requests", "Requests answered", ("route", "method", "code"), registry=GATEWAY)
REQUEST_SECONDS = Histogram(
    "facsimile_http_request_seconds",
    "Seconds from a request to the start of its answer",
    ("route", "method"),
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60),
    registry=GATEWAY,
)


class CensusCollector(Collector):
    """The figures of one moment; without a census the broker is down."""

    def __init__(self, census: Census | None, heard: Sequence[Heard]) -> None:
        self._census = census
        self._heard = heard

    def collect(self) -> Iterator[Metric]:
        """The figures as Prometheus takes them."""
        yield GaugeMetricFamily("facsimile_broker_up", "Whether the broker answers", float(self._census is not None))
        if self._census is None:
            return
        live = sum(item.live for item in self._heard)
        yield GaugeMetricFamily("facsimile_workers_live", "Workers heard of lately", live)
        yield self._workers()
        yield GaugeMetricFamily("facsimile_jobs_open", "Jobs that are queued or running", self._census.open_jobs)
        for name, text, size in (
            ("facsimile_broker_memory_bytes", "Memory that the broker uses", self._census.memory_bytes),
            (
                "facsimile_broker_memory_most_bytes",
                "Memory that the broker may use; 0: all",
                self._census.most_memory_bytes,
            ),
        ):
            yield GaugeMetricFamily(name, text, size)
        yield from self._queues(self._census)
        yield from self._counts(self._census.counts)

    def _workers(self) -> Metric:
        """A kind of queue that nobody serves is zero, not absent: only then can an alert see it."""
        workers = GaugeMetricFamily(
            "facsimile_queue_workers", "Live workers that serve a kind of queue", labels=["serves"]
        )
        served = [{queue.partition(".")[0] for queue in item.announcement.queues} for item in self._heard if item.live]
        for line in Line:
            workers.add_metric([line.value], sum(line in lines for lines in served))
        return workers

    def _queues(self, census: Census) -> Iterator[Metric]:
        depth = GaugeMetricFamily("facsimile_queue_depth", "Waiting jobs", labels=["queue"])
        age = GaugeMetricFamily(
            "facsimile_queue_oldest_age_seconds", "Age of the job that waits longest", labels=["queue"]
        )
        for queue in census.queues:
            depth.add_metric([queue.name], queue.depth)
            age.add_metric([queue.name], queue.oldest_age)
        yield depth
        yield age

    def _counts(self, counts: dict[str, int]) -> Iterator[Metric]:
        submitted = CounterMetricFamily("facsimile_jobs_submitted", "Jobs accepted", labels=["kind"])
        finished = CounterMetricFamily("facsimile_jobs_finished", "Jobs ended", labels=["kind", "outcome"])
        for kind in JobKind:
            submitted.add_metric([kind], counts.get(f"submitted:{kind}", 0))
            for state in JobState:
                if state.terminal:
                    finished.add_metric([kind, state], counts.get(f"finished:{kind}:{state}", 0))
        yield submitted
        yield finished
        for metric, name, text in (
            ("facsimile_jobs_refused", "refused:full", "Jobs not accepted because the queue was full"),
            ("facsimile_leases_expired", "leases:expired", "Jobs whose worker fell silent"),
            ("facsimile_tokens_resent", "tokens:resent", "Wake-up tokens sent again"),
        ):
            yield CounterMetricFamily(metric, text, counts.get(name, 0))
