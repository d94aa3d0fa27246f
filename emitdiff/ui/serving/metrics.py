"""Two pages for whoever runs the server: /health, and /metrics in the text format of Prometheus.

Both hold numbers and the names of weights alone: no name of a file, no text of a caller, no address.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import wraps
from pathlib import Path
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from emitdiff.ui.interface import Callables
from emitdiff.ui.results import is_image
from emitdiff.ui.serving.addresses import network_of
from emitdiff.ui.serving.guard import Traffic
from emitdiff.ui.serving.limits import Allowance
from emitdiff.ui.serving.logins import Logins, is_login
from emitdiff.version import __version__

# What is timed, by the name it has here and in the metrics; of what comes in pieces, from the first to the last.
AT_ONCE = ("control_image", "segment", "pack")
IN_PIECES = ("synthesize", "teach", "teach_dataset", "evaluate")
SECONDS = (0.1, 0.3, 1, 3, 10, 30, 100, 300)


@dataclass
class Metrics:
    """What a server did since its start, and how many requests wait and run in its queue."""

    traffic: Traffic = field(default_factory=Traffic)
    waiting: int = 0
    running: int = 0

    def __post_init__(self) -> None:
        self.registry = CollectorRegistry()
        self.seconds = Histogram(
            "emitdiff_work_seconds", "Time of a piece of work, waiting for the device included, by its kind and end.",
            ("work", "end"), buckets=SECONDS, registry=self.registry,
        )  # fmt: skip
        self.painted = Counter(
            "emitdiff_painted_images", "Synthetic images, without those of datasets.", registry=self.registry
        )
        self.registry.register(_Counted(self))
        ProcessCollector(registry=self.registry)

    def watch(self, calls: Callables) -> Callables:
        """`calls` that are timed and counted."""
        timed: dict[str, Any] = {name: self._timed(name, getattr(calls, name)) for name in AT_ONCE}
        timed |= {name: self._timed_pieces(name, getattr(calls, name)) for name in IN_PIECES}
        return replace(calls, **timed)

    def _timed(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(work)
        def timed(*given: Any, **named: Any) -> Any:
            with self._timing(name):
                return work(*given, **named)

        return timed

    def _timed_pieces(self, name: str, work: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        @wraps(work)
        def timed(*given: Any, **named: Any) -> Iterator[Any]:
            with self._timing(name):
                for piece in work(*given, **named):
                    self.painted.inc(is_image(piece) if name == "synthesize" else 0)
                    yield piece

        return timed

    @contextmanager
    def _timing(self, name: str) -> Iterator[None]:
        started, end = time.perf_counter(), "done"
        try:
            yield
        except GeneratorExit:
            end = "left"  # nobody asked for more
            raise
        except BaseException:
            end = "failed"
            raise
        finally:
            self.seconds.labels(name, end).observe(time.perf_counter() - started)


class _Counted(Collector):
    """What others count already, as Prometheus asks for it."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics

    def collect(self) -> Iterator[Metric]:
        traffic = self.metrics.traffic
        for name, words, label, counts in (
            ("emitdiff_answers", "Answers, by the class of their status.", "status", traffic.answers),
            ("emitdiff_refusals", "Requests that were refused before anything was done.", "reason", traffic.refusals),
        ):
            family = CounterMetricFamily(name, words, labels=[label])
            for value, count in list(counts.items()):
                family.add_metric([value], count)
            yield family
        yield CounterMetricFamily("emitdiff_uploaded_bytes", "Bytes of uploads.", value=traffic.uploaded)
        open_now = sum(traffic.open.values())
        yield GaugeMetricFamily("emitdiff_open_requests", "Requests that are being answered.", value=open_now)
        yield GaugeMetricFamily("emitdiff_queue_length", "Requests that wait in the queue.", value=self.metrics.waiting)
        yield GaugeMetricFamily("emitdiff_queue_running", "Requests of the queue that run.", value=self.metrics.running)


def health(calls: Callables) -> dict[str, Any]:
    """{"status": "ok", "version": .., "weights": {kind: {"name": .., "status": .., "loaded": ..}}} of those chosen."""
    known = {model.name: model for model in calls.models()}
    chosen = {"synthesis": calls.synthesis_checkpoint, "segmentation": calls.segmentation_checkpoint}
    weights = {
        kind: {
            "name": Path(name).name,  # of a folder, not where it lies
            "status": known[name].status if name in known else "missing",
            "loaded": calls.is_loaded(name),
        }
        for kind, name in chosen.items()
    }
    return {"status": "ok", "version": __version__, "weights": weights}


def status_routes(calls: Callables | None, metrics: Metrics, logins: Logins | None = None) -> list[Route]:
    """The two pages, which are answered while all threads compute. With `logins` the numbers are told to these alone,
    by HTTP's Basic scheme, as Prometheus can ask."""
    attempts = Allowance(10, 10)

    async def tell_health(request: Request) -> Response:
        # Not in a thread of Starlette's, which are those that compute.
        told = await asyncio.to_thread(health, calls) if calls else {"status": "ok", "version": __version__}
        return JSONResponse(told, headers={"Cache-Control": "no-store"})

    async def tell_metrics(request: Request) -> Response:
        if logins:
            if seconds := attempts.take(network_of(request.client.host if request.client else "")):
                return Response(status_code=429, headers={"Retry-After": str(seconds)})
            if not is_login(request.headers.get("authorization", ""), logins):
                return Response(status_code=401, headers={"WWW-Authenticate": 'Basic realm="metrics"'})
        queue = request.app.get_blocks()._queue
        metrics.waiting, metrics.running = len(queue), sum(job is not None for job in queue.active_jobs)
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return [Route("/health", tell_health), Route("/metrics", tell_metrics)]
