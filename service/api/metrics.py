"""``GET /metrics``: the same numbers as ``/v1/streams`` and ``/readyz``, for Prometheus."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from starlette.responses import Response

from service.alarms import KINDS
from service.api.site import Site
from service.api.streams import alarms_on, stream_entries

OF_THE_WORKER = {
    "rjepa_worker_up": "1 while the worker answers",
    "rjepa_recovering": "1 while entries of the journal are learned again after a start",
    "rjepa_storage_ok": "1 while the journal takes writes",
    "rjepa_learning": "1 while weights change",
    "rjepa_fixations_waiting": "fixations journalled and not learned yet",
    "rjepa_oldest_wait_seconds": "how long the oldest of them has waited",
}
OF_A_STREAM = {
    "rjepa_stream_next_seq": ("next_seq", "first seq not yet durable"),
    "rjepa_stream_lag": ("lag", "fixations journalled and not learned yet"),
    "rjepa_stream_rate": ("rate", "fixations per second over the last minute"),
    "rjepa_stream_last_error": ("last_error", "the newest prediction error"),
    "rjepa_stream_idle_seconds": ("idle_s", "seconds since the newest fixation came"),
    "rjepa_stream_connected": ("connected", "1 where a client has said hello for it since the worker started"),
}
OF_THE_LAST_LOOK = {
    "rjepa_stream_learning": (("learning",), "1 where it is learning: skill above 0, nothing wrong with the rank"),
    "rjepa_stream_skill": (("skill", "value"), "skill against the best trivial predictor"),
    "rjepa_stream_skill_low": (("skill", "low"), "lower end of its 95 % interval"),
    "rjepa_stream_skill_high": (("skill", "high"), "upper end of its 95 % interval"),
    "rjepa_stream_learned_skill": (("learned_skill", "value"), "what the circuit adds beyond its untrained twin"),
    "rjepa_stream_rank_ratio": (("rank_ratio",), "effective rank over the frozen network's"),
    "rjepa_stream_live_cosine": (("live_cosine",), "the gradient's cosine with back-propagation through time"),
}
"""Kept from the last regular look at a stream's diagnostics: nothing is computed for a scrape."""
COUNTED_OF_A_STREAM = {
    "rjepa_stream_learned": ("learned", "fixations learned"),
    "rjepa_stream_padded": ("padded", "fixations whose patch went over the frame's edge"),
}
BY_REASON = {
    "rjepa_stream_skipped": "fixations not learned",
    "rjepa_stream_alarm": "1 while this alarm of a stream is on",
    "rjepa_alarm": "1 while this alarm of the whole is on",
    "rjepa_alarms": "alarms kept, by kind",
}

_TOLD = {
    "schema": {"type": "string"},
    "example": "".join(
        f"# HELP {name} {OF_THE_WORKER[name]}\n# TYPE {name} gauge\n{name} 1.0\n"
        for name in ("rjepa_worker_up", "rjepa_learning")
    ),
}


class _Now(Collector):
    """What is so at the moment of the question; made anew for each."""

    def __init__(
        self,
        status: dict[str, Any] | None,
        entries: list[dict[str, Any]],
        alarms: dict[str, int],
        on: list[dict[str, Any]],
    ) -> None:
        self._status = status
        self._entries = entries
        self._alarms = alarms
        self._on = on

    def collect(self) -> Iterator[Metric]:
        """Every family."""
        yield from self._worker()
        for name, (key, text) in OF_A_STREAM.items():
            family = GaugeMetricFamily(name, text, labels=["stream"])
            for entry in self._entries:
                if entry[key] is not None:
                    family.add_metric([entry["stream"]], float(entry[key]))
            yield family
        yield from self._last_looks()
        yield from self._alarms_on()
        for name, (key, text) in COUNTED_OF_A_STREAM.items():
            counter = CounterMetricFamily(name, text, labels=["stream"])
            for entry in self._entries:
                counter.add_metric([entry["stream"]], float(entry[key]))
            yield counter
        skipped = CounterMetricFamily(
            "rjepa_stream_skipped", BY_REASON["rjepa_stream_skipped"], labels=["stream", "reason"]
        )
        for entry in self._entries:
            for reason, count in entry["dropped"].items():
                skipped.add_metric([entry["stream"], reason], float(count))
        yield skipped
        alarms = GaugeMetricFamily("rjepa_alarms", BY_REASON["rjepa_alarms"], labels=["kind"])
        for kind, count in self._alarms.items():
            alarms.add_metric([kind], float(count))
        yield alarms

    def _last_looks(self) -> Iterator[Metric]:
        looks = [(entry["stream"], entry["diagnostics"]) for entry in self._entries if entry["diagnostics"]]
        for name, (path, text) in OF_THE_LAST_LOOK.items():
            family = GaugeMetricFamily(name, text, labels=["stream"])
            for stream, look in looks:
                value = look
                for key in path:
                    value = value[key]
                if value is not None:
                    family.add_metric([stream], float(value))
            yield family

    def _alarms_on(self) -> Iterator[Metric]:
        family = GaugeMetricFamily("rjepa_stream_alarm", BY_REASON["rjepa_stream_alarm"], labels=["stream", "kind"])
        for entry in self._entries:
            for alarm in entry["alarms_on"]:
                family.add_metric([entry["stream"], alarm["kind"]], 1.0)
        yield family
        whole = GaugeMetricFamily("rjepa_alarm", BY_REASON["rjepa_alarm"], labels=["kind"])
        for alarm in self._on:
            whole.add_metric([alarm["kind"]], 1.0)
        yield whole

    def _worker(self) -> Iterator[Metric]:
        status = self._status
        values = {"rjepa_worker_up": float(status is not None)}
        if status is not None:
            values["rjepa_recovering"] = float(bool(status["recovering"]))
            values["rjepa_storage_ok"] = float(not status["storage"])
            values["rjepa_learning"] = float(bool(status["model"]["learning"]))
            values["rjepa_fixations_waiting"] = float(status["waiting"])
            values["rjepa_oldest_wait_seconds"] = float(status["oldest_wait_s"] or 0.0)
        for name, value in values.items():
            yield GaugeMetricFamily(name, OF_THE_WORKER[name], value=value)


def router(site: Site) -> APIRouter:
    """The routes of this module."""
    routes = APIRouter(tags=["health"])

    @routes.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": _TOLD}, "description": "Prometheus text format 0.0.4"}},
        summary="Prometheus",
    )
    def metrics() -> Response:
        status = site.worker.status_or_none()
        entries: list[dict[str, Any]] = []
        alarms: dict[str, int] = {}
        on: list[dict[str, Any]] = []
        if site.database.is_file():
            with site.read() as connection:
                owners = None if status is None else dict(status["owners"])
                entries = stream_entries(connection, owners, time.time())
                on = alarms_on(connection)
                counted = connection.execute("SELECT kind, count(*) FROM alarms GROUP BY kind").fetchall()
                alarms = dict.fromkeys(KINDS, 0) | dict(counted)  # at 0 too: a rise from nothing is none for Prometheus
        registry = CollectorRegistry()
        registry.register(_Now(status, entries, alarms, on))
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return routes
