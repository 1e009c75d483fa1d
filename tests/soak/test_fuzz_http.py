"""The interface held against its own OpenAPI document by schemathesis: what fits the document and what does not.

No call may be answered with 500, with a status, a content type or a shape the document does not tell; what does not
fit the document is refused; nothing but the commands that were allowed reaches the worker.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from tests.service.api_support import Lab, interface, working
from tests.soak.test_fuzz_wire import PATCHES, live, tapped

CONFORMANCE = [
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
]
CHECKPOINT = {
    "id": "c1", "created": 1.0, "label": None, "pinned": False, "size_bytes": 1, "sha256": "0" * 64, "timeline": 0,
    "parent": None, "cursors": {"s1": 1},
}  # fmt: skip

ENDLESS = "/v1/events"
"""An answer without end is none to wait for; what is refused here is in tests/service/test_api_events.py."""


def no_fault(ctx: Any, response: Any, case: Any) -> None:
    """503 and 504 are answers (busy, pending); 500 and an inside that is shown are not."""
    assert response.status_code != 500, response.content
    assert b"Traceback" not in response.content


def asked(strategy: st.SearchStrategy[Any], count: int, call: dict[str, Any], told: Counter[str]) -> None:
    """``count`` cases of one strategy, called and checked."""

    @settings(
        max_examples=count,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def ask(case: Any) -> None:
        response = case.call_and_validate(timeout=60.0, **call)
        told[f"{case.method} {case.operation.path} {response.status_code}"] += 1

    ask()


def shaken(
    base_url: str, count: int, checks: list[Callable[..., Any]], known: dict[str, Any], without: tuple[str, ...] = ()
) -> Counter[str]:
    """``count`` calls of each kind for each operation: fitting, fitting with ``known`` path parameters, unfitting;
    for paths that begin with one of ``without``, none, nor for the endless events."""
    told: Counter[str] = Counter()
    schema = schemathesis.openapi.from_url(f"{base_url}/openapi.json")
    with requests.Session() as session:
        found = [result.ok() for result in schema.get_all_operations()]
        operations = [operation for operation in found if not operation.path.startswith((*without, ENDLESS))]
        for operation in sorted(operations, key=lambda one: one.method == "delete"):  # what is there goes last
            names = {parameter.name for parameter in operation.path_parameters}
            filled = {name: value for name, value in known.items() if name in names}
            fitting = operation.as_strategy(GenerationMode.POSITIVE)
            strategies = [fitting]
            if {"parameters", "requestBody"} & set(operation.definition.raw):  # without, everything fits
                strategies.append(operation.as_strategy(GenerationMode.NEGATIVE))
            if filled:
                strategies.append(operation.as_strategy(GenerationMode.POSITIVE, path_parameters=filled))
            for strategy in strategies:
                asked(strategy, count, {"base_url": base_url, "session": session, "checks": checks}, told)
    return told


def test_a_few_calls_of_each_kind(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.learn([None, *(0.5 + 0.01 * n for n in range(9))])
    try:
        with working(tmp_path) as desk, interface(tmp_path, request_rate=1e6) as client:
            desk.result = {"checkpoint": CHECKPOINT}
            known = {"stream": "s1", "seq": 3, "checkpoint": "c1"}
            checks = [*CONFORMANCE, not_a_server_error, no_fault]
            scripted = ("/v1/diagnostics/",)  # the worker here is played, and its diagnostics are its own word
            told = shaken(str(client.base_url).rstrip("/"), 4, checks, known, without=scripted)
            print(sum(told.values()), dict(told))
            assert sum(told.values()) > 100
            assert client.get("/readyz").status_code == 200
    finally:
        lab.journal.close()


@pytest.mark.soak
def test_many_calls_with_a_worker_behind(data_dir: Path, tmp_path: Path) -> None:
    with live(data_dir, tmp_path / "logs") as worker, interface(data_dir, request_rate=1e6) as client:
        tapped(worker.address, tmp_path)
        before = worker.place()["streams"]
        checkpoint = client.post("/v1/checkpoints", json={}).json()["id"]
        known = {"stream": "kept", "seq": 3, "checkpoint": checkpoint}
        told = shaken(str(client.base_url).rstrip("/"), 100, [*CONFORMANCE, no_fault], known)
        print(sum(told.values()), dict(told))
        assert [row[:3] for row in worker.place()["streams"]] == [row[:3] for row in before], "no cursor moved"
        assert before[0][2] == len(PATCHES)
        assert worker.process.alive(), worker.process.stderr()[-3000:]
        assert "Traceback" not in worker.process.stderr()
        assert client.get("/readyz").status_code == 200
