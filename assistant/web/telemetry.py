"""Tell overseers how the service fares: `/healthz`, `/readyz`, and `/metrics` for Prometheus."""

import ipaddress
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from fastapi import FastAPI
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    generate_latest,
    values,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from assistant.answer import language_of
from assistant.errors import AssistantError
from assistant.frontdesk import FrontDesk, Reply
from assistant.web.facts import generation
from assistant.web.login import person_of
from assistant.web.problems import problem

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_SHARES = tuple(step / 20 for step in range(1, 21))
_METHODS = ("GET", "POST", "HEAD", "DELETE")
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")
_LOOPBACK_NAMES = ("127.0.0.1", "localhost", "::1")
_PROBE = "客服 support"
_METRICS = "/metrics"
_log = logging.getLogger(__name__)


def share_metrics(folder: Path, number: int) -> None:
    """Keep all that this process counts in files of a folder, beside those of other workers.

    They have this worker's number: who replaces it counts on.
    """
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    values.ValueClass = values.MultiProcessValue(lambda: number)  # type: ignore[no-untyped-call]


class Telemetry:
    """Count what is asked and answered; one registry an application.

    With a folder of `share_metrics` it tells the sums over all workers, and of the process nothing.
    """

    def __init__(self, front: FrontDesk, shared: Path | None = None) -> None:
        self._front = front
        self._shared = shared
        self.registry = CollectorRegistry()
        self._asks = Counter(
            "assistant_asks",
            "Questions answered.",
            ("verdict", "language", "saved"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "assistant_ask_seconds",
            "Time to answer a question and keep the answer.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._confidence = Histogram(
            "assistant_confidence",
            "Calibrated confidence of answers.",
            buckets=_SHARES,
            registry=self.registry,
        )
        self._requests = Counter(
            "assistant_http_requests",
            "Requests by route and status.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self.registry.register(_State(front))
        ProcessCollector(registry=self.registry)
        front.listeners.append(self.heard)

    def heard(self, reply: Reply, seconds: float) -> None:
        """Count a reply and the time it took."""
        answer = reply.answer
        language = language_of(answer.question)
        self._asks.labels(answer.verdict, language, str(reply.saved).lower()).inc()
        self._seconds.observe(seconds)
        self._confidence.observe(answer.confidence)

    def requested(self, method: str, route: str, status: int) -> None:
        """Count a request."""
        method = method if method in _METHODS else "other"
        self._requests.labels(method, route, str(status)).inc()

    def routes(self, app: FastAPI) -> None:
        """Add `/healthz`, `/readyz` and `/metrics`; needs `login.sign_in_routes` for the last."""
        for path, answer in (
            ("/healthz", self._healthz),
            ("/readyz", self._readyz),
            (_METRICS, self._metrics),
        ):
            app.add_api_route(path, answer, methods=["GET"], include_in_schema=False)

    def scraped(self, request: Request) -> bool:
        """Tell whether a request is for metrics, by one who may read them."""
        return request.scope["path"] == _METRICS and self._may_read(request)

    def _healthz(self) -> Response:
        """Say that the process is up."""
        return JSONResponse({"status": "ok", "generation": self._front.desk.generation}, 200)

    def _readyz(self) -> Response:
        """Say whether questions can be answered, and whether answers are kept."""
        try:
            self._front.desk.search(_PROBE, top_k=1)
        except Exception:
            _log.exception("not ready: the index cannot be searched")
            words = "The index cannot be searched; the log says why."
            return problem(503, words, {"retry-after": "5"})
        ready = {
            "status": "ready",
            "generation": self._front.desk.generation,
            "saving": self._front.history.saving,
            "notes": len(self._front.notes),
        }
        return JSONResponse(ready)

    def _metrics(self, request: Request) -> Response:
        """Give the metrics to this machine and to maintainers, or to all if the setting says so."""
        if not self._may_read(request):
            words = "Metrics are for this machine and for maintainers: send a maintainer's token."
            return problem(401, words, {"www-authenticate": 'Bearer realm="assistant"'})
        return Response(generate_latest(self._told()), media_type=CONTENT_TYPE_LATEST)

    def _may_read(self, request: Request) -> bool:
        if self._front.settings.metrics_open or _is_local(request):
            return True
        person = person_of(request)
        return person is not None and person.may("maintainer")

    def _told(self) -> CollectorRegistry:
        if self._shared is None:
            return self.registry
        registry = CollectorRegistry()
        MultiProcessCollector(registry, str(self._shared))  # type: ignore[no-untyped-call]
        registry.register(_State(self._front))
        return registry


class Counted:
    """Count every request by its route's template, so that paths with ids stay one series."""

    def __init__(self, app: ASGIApp, telemetry: Telemetry) -> None:
        self._app = app
        self._telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and count the status of its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._telemetry.requested(scope["method"], _template(scope), message["status"])
            await send(message)

        await self._app(scope, receive, counted)


class _State(Collector):
    """Read the state of index and tickets when it is asked for."""

    def __init__(self, front: FrontDesk) -> None:
        self._front = front

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges; tickets are left out while the database cannot be read."""
        about = generation(self._front.desk)
        names = ("generation", "model")
        info = GaugeMetricFamily("assistant_index_info", "The index in use.", labels=names)
        info.add_metric((about.generation, about.model), 1)
        yield info
        if about.age_seconds is not None:
            yield _gauge("assistant_index_age_seconds", "Age of the index.", about.age_seconds)
        yield _gauge("assistant_index_passages", "Passages in the index.", about.passages)
        yield _gauge("assistant_index_views", "Views in the index.", about.views)
        saving = float(self._front.history.saving)
        yield _gauge("assistant_history_saving", "1 while answers are kept.", saving)
        try:
            counts = self._front.history.counts()
        except AssistantError:
            return
        tickets = GaugeMetricFamily("assistant_tickets", "Tickets by state.", labels=("state",))
        for state in sorted({"new", "claimed", "closed", *counts}):
            tickets.add_metric((state,), counts.get(state, 0))
        yield tickets


def _gauge(name: str, words: str, value: float) -> Metric:
    return GaugeMetricFamily(name, words, value=value)


def _template(scope: Scope) -> str:
    """Return the template of the route that answered, "other" when none did."""
    route = scope.get("route")
    return str(getattr(route, "path", "") or ("/" if scope["path"] in ("", "/") else "other"))


def _is_local(request: Request) -> bool:
    """Tell whether a request was made on this machine, and not passed on by a proxy here."""
    host = request.client.host if request.client else ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    direct = not any(name in request.headers for name in _FORWARDED)
    return address.is_loopback and direct and request.url.hostname in _LOOPBACK_NAMES
