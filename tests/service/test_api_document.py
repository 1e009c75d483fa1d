"""The OpenAPI document: nothing in it without a word, an example and every refusal."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from model.bootstrap import NOTHING
from model.skill import Skill
from model.verdict import ENOUGH, judge
from service.access import Access
from service.api.app import create_app
from service.api.codes import CALLS, REFUSALS
from service.settings import Settings
from tests.helpers import ROOT

DOCUMENT = create_app(Settings(), Access.load(Path("/nowhere"))).openapi()
SCHEMAS = DOCUMENT["components"]["schemas"]
OPERATIONS = {f"{m.upper()} {path}": call for path, methods in DOCUMENT["paths"].items() for m, call in methods.items()}
QUANTITIES = {
    "_s": ("s", "seconds"), "time": ("unix s",), "since": ("unix s",), "created": ("unix s",), "onset": ("s",),
    "duration": ("s",), "latency_ms": ("ms",), "size_bytes": ("bytes",), "rate": ("per second",),
    "degrees": ("degrees",), "height": ("px",), "width": ("px",), "x": ("0 left to 1 right",),
    "y": ("0 top to 1 bottom",),
}  # fmt: skip
"""The end of a field's name, and the unit its description must name."""
ERRORS = ("error", "smoothed", "prediction_error", "last_error", "mean")
FIELDS = [(name, field) for name, schema in SCHEMAS.items() for field in schema.get("properties", {})]


def fits(example: Any, schema: dict[str, Any]) -> None:
    """Raises where ``example`` is none of ``schema``, whose references are the document's."""
    jsonschema_rs.validate({**schema, "components": DOCUMENT["components"]}, example)


def bodies() -> list[tuple[str, dict[str, Any]]]:
    """Every body of every call, sent or answered: its name and its media type object."""
    found = []
    for name, call in OPERATIONS.items():
        contents = {"sent": call.get("requestBody", {}).get("content", {})}
        contents |= {status: told.get("content", {}) for status, told in call["responses"].items()}
        found += [
            (f"{name} {which} {kind}", body) for which, content in contents.items() for kind, body in content.items()
        ]
    return found


def test_what_is_said_of_the_word_is_what_it_takes() -> None:
    told = SCHEMAS["Representation"]["properties"]
    assert told["why"]["examples"] == [judge(Skill(NOTHING, NOTHING, None, {}), 412, []).why]
    assert f"{ENOUGH:,} predictions" in told["learning"]["description"]
    assert f"{ENOUGH:,} predictions" in (ROOT / "docs" / "http.md").read_text()


def test_every_call_is_in_the_table() -> None:
    assert set(OPERATIONS) == set(CALLS)


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_call_says_what_it_does_and_how_it_refuses(name: str) -> None:
    call = OPERATIONS[name]
    assert call["summary"]
    assert call["tags"]
    assert any(status.startswith("2") for status in call["responses"])
    assert all(told["description"] for told in call["responses"].values())
    refusals = {status: told for status, told in call["responses"].items() if not status.startswith("2")}
    told = {
        (code, int(status))
        for status, answer in refusals.items()
        for code, example in answer["content"]["application/problem+json"]["examples"].items()
        if (example["value"]["code"], example["value"]["status"]) == (code, int(status))
    }
    assert told == {(code, REFUSALS[code].status) for code in CALLS[name]}
    assert {"unauthorized", "too_many_requests"} <= set(CALLS[name]) or name in ("GET /livez", "GET /readyz")
    for parameter in call.get("parameters", []):
        assert parameter["description"], parameter["name"]
        example = parameter.get("example")
        assert example is not None, parameter["name"]
        fits(example, parameter["schema"])


@pytest.mark.parametrize(("name", "body"), bodies(), ids=lambda value: value if isinstance(value, str) else "")
def test_every_body_has_a_schema_and_an_example_that_fits(name: str, body: dict[str, Any]) -> None:
    if body["schema"].get("format") == "binary":
        return  # bytes: the media type says it all
    examples = [body["example"]] if "example" in body else [one["value"] for one in body["examples"].values()]
    assert examples
    for example in examples:
        fits(example, body["schema"])


@pytest.mark.parametrize(("shape", "field"), FIELDS)
def test_every_field_is_described_with_its_unit(shape: str, field: str) -> None:
    said = SCHEMAS[shape]["properties"][field].get("description", "")
    assert said, f"{shape}.{field} has no description"
    for end, units in QUANTITIES.items():
        if field == end or (end.startswith("_") and field.endswith(end)):
            assert any(unit in said for unit in units), f"{shape}.{field}: {said!r} names no unit of {units}"
    if field in ERRORS:
        assert "distance" in said, f"{shape}.{field}: {said!r} does not say what it is measured in"


def raised() -> set[tuple[str, int]]:
    """Every (code, status) a refusal is made of in the sources of service."""
    found = set()
    for path in (ROOT / "service").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            named = isinstance(node, ast.Call) and ast.unparse(node.func) in ("Problem", "RequestRefused", "failure")
            if named and len(node.args) > 1 and all(isinstance(one, ast.Constant) for one in node.args[:2]):
                found.add((node.args[1].value, node.args[0].value))
    return found


INSIDE = {("unknown_op", 422), ("unknown_command", 422)}
"""What the worker says to a request the interface never makes."""


def test_every_refusal_of_the_sources_is_in_the_table() -> None:
    found = raised()
    assert len(found) > 20
    assert found - INSIDE <= {(one.code, one.status) for one in REFUSALS.values()}
