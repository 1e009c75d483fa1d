"""The docs are complete: commands, settings, routes, kinds, error codes, alarms are all found in them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import rjepa
from clients.wire import KINDS, ErrorCode
from service import alarms
from service.api.columns import NAMES
from service.api.diagnostics_shapes import Gradient, Representation
from service.api.metrics import BY_REASON, COUNTED_OF_A_STREAM, OF_A_STREAM, OF_THE_LAST_LOOK, OF_THE_WORKER
from service.schema import TRIVIAL_ERRORS
from service.settings_page import page
from tests.helpers import ROOT

DOCS = {path.name: path.read_text() for path in (ROOT / "docs").glob("*.md")}
README = (ROOT / "README.md").read_text()
COLUMNS_OF_TABLES = [name for name in NAMES if not name.startswith("trivial_")]
EVERYTHING = README + "".join(DOCS.values())


@pytest.mark.parametrize("word", rjepa.COMMANDS)
def test_every_command_is_told(word: str) -> None:
    assert f"rjepa {word}" in EVERYTHING


def test_the_settings_page_is_fresh() -> None:
    assert DOCS["settings.md"] == page(), "make docs"


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_message_is_told(kind: str) -> None:
    assert f"| `{kind}` |" in DOCS["wire.md"]


@pytest.mark.parametrize("code", [code.value for code in ErrorCode])
def test_every_error_code_is_told(code: str) -> None:
    assert f"| `{code}` |" in DOCS["wire.md"]


@pytest.mark.parametrize("name", TRIVIAL_ERRORS)
def test_every_trivial_predictor_is_told(name: str) -> None:
    assert f"`{name}`" in DOCS["http.md"]


@pytest.mark.parametrize("kind", alarms.KINDS)
def test_every_alarm_is_told(kind: str) -> None:
    assert f"`{kind}`" in DOCS["operation.md"]


@pytest.mark.parametrize("name", [*OF_THE_WORKER, *OF_A_STREAM, *OF_THE_LAST_LOOK, *COUNTED_OF_A_STREAM, *BY_REASON])
def test_every_metric_is_told(name: str) -> None:
    assert f"`{name}`" in DOCS["operation.md"]


@pytest.mark.parametrize("name", [*Representation.model_fields, *Gradient.model_fields])
def test_every_measure_is_told(name: str) -> None:
    assert f"`{name}`" in DOCS["http.md"]


def test_every_route_is_told() -> None:
    from service.access import Access
    from service.api.app import create_app
    from service.settings import Settings

    paths = create_app(Settings(), Access.load(Path("/nowhere"))).openapi()["paths"]
    for path, methods in paths.items():
        told = path.replace("{checkpoint}", "{id}").replace("{checkpoint_id}", "{id}")
        for method in methods:
            assert re.search(rf"`[^`]*\b{method.upper()}\b[^`]*`?[^|]*{re.escape(told)}", DOCS["http.md"]), (
                f"{method} {path}"
            )


def codes_of_http() -> set[str]:
    """Every code the interface gives a refusal, as its sources spell them."""
    from service.api.codes import REFUSALS
    from service.api.problems import _CODES

    found = {*_CODES.values(), *REFUSALS}
    for path in (ROOT / "service" / "api").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Problem" and len(node.args) > 1:
                code = node.args[1]
                found |= {str(code.value)} if isinstance(code, ast.Constant) else set()
    return found


@pytest.mark.parametrize("name", COLUMNS_OF_TABLES)
def test_every_column_of_tables_is_told(name: str) -> None:
    assert f"`{name}`" in DOCS["http.md"]


@pytest.mark.parametrize("code", sorted(codes_of_http()))
def test_every_code_of_http_is_told(code: str) -> None:
    assert f"`{code}`" in DOCS["http.md"]


def test_links_lead_somewhere() -> None:
    for name, text in {"README.md": README, **{f"docs/{name}": text for name, text in DOCS.items()}}.items():
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
            if "://" not in target:
                assert ((ROOT / name).parent / target).exists(), f"{name} links to {target}"


def test_the_tests_named_as_proof_exist() -> None:
    for file, test in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", DOCS["promises.md"] + DOCS["faults.md"]):
        source = ROOT / file
        assert source.exists(), file
        assert not test or f"def {test}(" in source.read_text(), f"{file}::{test}"
