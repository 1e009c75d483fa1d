"""What must be found in the pages: what to do about everything that can go wrong, every word, metrics that exist."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import yaml

import clients
import model
import rjepa
import service
from clients.errors import ClientError
from clients.wire import ErrorCode
from model.errors import ModelError
from service import alarms
from service.errors import ServiceError
from tests.docs.blocks import blocks, texts
from tests.docs.lab import Lab
from tests.docs.test_notebook import NOTEBOOKS
from tests.test_docs import codes_of_http

FAULTS = texts()["docs/faults.md"].split("\n## What to do\n")[1].split("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """The rows of all tables in ``text``, without their heads."""
    found = []
    for table in re.findall(r"(?m)^\|.*\n\|[-| ]+\|\n((?:\|.*\n)+)", text + "\n"):
        found += [re.split(r"(?<!\\)\|", line)[1:-1] for line in table.splitlines()]
    return found


def part(title: str) -> str:
    """The section ``title`` of what to do."""
    return FAULTS.split(f"\n### {title}\n")[1].split("\n### ")[0]


def told(title: str) -> set[str]:
    """What the first column of its tables names between backticks."""
    return {word for row in rows(part(title)) for word in re.findall(r"`([^`]+)`", row[0])}


def errors() -> list[type[Exception]]:
    """Every class of error with an exit code, of every room."""
    for room in (clients, model, service):
        for module in pkgutil.walk_packages(room.__path__, f"{room.__name__}."):
            if module.name not in ("service.health",):
                importlib.import_module(module.name)

    def below(kind: type[Exception]) -> Iterator[type[Exception]]:
        yield kind
        for each in kind.__subclasses__():
            yield from below(each)

    every = [kind for base in (ClientError, ServiceError, ModelError) for kind in below(base)]
    return [kind for kind in every if kind.__module__.split(".")[0] in ("clients", "model", "service")]


def test_every_way_out_is_told_in_three_columns() -> None:
    found = rows(FAULTS)
    assert len(found) > 50
    for row in found:
        assert len(row) == 3, row
        assert all(cell.strip() for cell in row), row


@pytest.mark.parametrize("kind", alarms.KINDS)
def test_what_to_do_about_every_alarm(kind: str) -> None:
    assert kind in told("An alarm is on")


@pytest.mark.parametrize("code", [code.value for code in ErrorCode])
def test_what_to_do_about_every_error_on_the_wire(code: str) -> None:
    assert code in told("The worker answers an error on the wire")


def test_what_to_do_about_every_error_of_http() -> None:
    tables = texts()["docs/http.md"]
    named = {
        code for row in rows(tables) if re.fullmatch(r"\s*\d{3}\s*", row[0]) for code in re.findall(r"`(\w+)`", row[1])
    }
    assert len(named) > 20
    assert (codes_of_http() | named) - told("HTTP answers an error") == set()


def test_what_to_do_about_every_exit_code() -> None:
    codes = {str(kind.exit_code) for kind in errors()} | {"0", "130"}
    assert codes <= told("A command ended")


def test_what_to_do_about_every_code_in_the_log() -> None:
    codes = {str(kind.code) for kind in errors() if hasattr(kind, "code")}
    assert codes - told("A command ended") - told("HTTP answers an error") == set()


@pytest.mark.parametrize("reason", ["off_frame", "no_frame", "black", "frame_broken", "frame_size", "repeat", "lost"])
def test_what_a_fixation_is_not_sent_or_learned_for_is_a_symptom(reason: str) -> None:
    assert f"`{reason}`" in part("Something is odd")


# The glossary.

GLOSSARY = {row[0].strip(): row[1].strip() for row in rows(texts()["docs/glossary.md"])}
WANTED = """
    fixation, patch, px/deg, reciprocal gated circuit, sensitivity, RFP, RTRL, BPTT, prequential error,
    stop-gradient, carry, skill, learned skill, twin, effective rank, probe, retrieval, balance, timeline, cursor,
    sequence, spool, epoch, CURVE, scanpath, saccade, embedding, checkpoint
""".replace("\n", " ").split(",")
_NAMES = """
    API ASCII BIDS CPU CSV CUDA DACS GPU HTTP HTML ISO JPEG JSON LSL MATLAB MCS MIT MLP MSG NVIDIA PNG POST PATCH
    DELETE PSF README RFC RGB SHA SIGKILL SIGTERM SMI SQL SUB PUB TCP TLS TOML URL UTF WAL YAML ZMTP GNU OSError EEG
    DEALER ROUTER READY NULL EIO POSIX ARGS FULL PATH NAME FILE DIR KIND VIDEO HOST PORT
"""
KNOWN_ELSEWHERE = set(_NAMES.split())
"""Names of formats, protocols and the like, which a dictionary or their own page explains."""


@pytest.mark.parametrize("word", [word.strip() for word in WANTED])
def test_a_word_is_explained(word: str) -> None:
    assert GLOSSARY.get(word)


def test_every_word_explained_is_used() -> None:
    pages = [text for page, text in texts().items() if page != "docs/glossary.md"]
    used = " ".join("".join([*pages, *(path.read_text() for path in NOTEBOOKS)]).lower().split())
    unused = [word for names in GLOSSARY for word in names.split(", ") if word.lower() not in used]
    assert unused == []


def test_every_abbreviation_is_explained_or_known() -> None:
    explained = {word for names in GLOSSARY for word in re.findall(r"[A-Za-z-]+", names)}
    for page, text in texts().items():
        prose = re.sub(
            r"```.*?```|`[^`]*`|\]\([^)]*\)|^ {4}.*$|<!-- table.*?<!-- end -->", " ", text, flags=re.S | re.M
        )
        found = set(re.findall(r"(?<![\w./-])[A-Z]{3,}(?![\w./-])", prose))
        assert found - explained - KNOWN_ELSEWHERE == set(), page


# Prometheus.


def yaml_blocks() -> dict[str, Any]:
    """The yaml of the operation page, by its one key."""
    found = [yaml.safe_load(block.text) for block in blocks("yaml") if block.page == "docs/operation.md"]
    return {key: value for each in found for key, value in each.items()}


LABELS = {
    "rjepa_stream_alarm": {"stream", "kind"},
    "rjepa_alarm": {"kind"},
    "rjepa_alarms": {"kind"},
    "rjepa_stream_skipped_total": {"stream", "reason"},
}
"""What a rule may say of what it found."""


def test_the_rules_name_metrics_labels_and_alarms_that_there_are(lab: Lab) -> None:
    scraped = httpx.get(f"{lab.http}/metrics", timeout=30).text
    families = dict(re.findall(r"(?m)^# TYPE (\w+) (\w+)$", scraped))
    labels = set(re.findall(r"[{,](\w+)=\"", scraped)) | {"kind", "reason", "job"}
    rules = [rule for group in yaml_blocks()["groups"] for rule in group["rules"]]
    assert len(rules) > 5
    for rule in rules:
        assert set(rule) <= {"alert", "expr", "for", "annotations"}
        assert rule["annotations"]["summary"]
        assert rule["expr"].count("(") == rule["expr"].count(")")
        for metric in re.findall(r"\brjepa_\w+", rule["expr"]):
            assert metric in families, f"{rule['alert']} names {metric}"
        for name in re.findall(r"\$labels\.(\w+)|[{,](\w+)[=!]", f"{rule['expr']} {rule['annotations']['summary']}"):
            assert set(name) - {""} <= labels, rule["alert"]
        for kinds in re.findall(r'kind=~"([^"]*)"', rule["expr"]):
            assert set(kinds.split("|")) <= set(alarms.KINDS), rule["alert"]
        asked = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        metric = re.findall(r"\brjepa_\w+", rule["expr"])[0]
        assert asked <= LABELS.get(metric, set()), rule["alert"]


def test_the_scrape_asks_what_is_there(lab: Lab) -> None:
    (job,) = yaml_blocks()["scrape_configs"]
    (target,) = job["static_configs"][0]["targets"]
    assert httpx.get(lab.here(f"http://{target}") + job["metrics_path"], timeout=30).status_code == 200
    assert "rjepa token add prometheus --role read" in texts()["docs/operation.md"]


# The way to each page, and to each name.


@pytest.mark.parametrize("name", sorted(set(rjepa.__all__) - {"main", "__version__"}))
def test_every_name_a_script_imports_is_told(name: str) -> None:
    assert re.search(rf"`rjepa\.{name}\b|from rjepa import [\w, ]*\b{name}\b", "".join(texts().values()))
    assert getattr(rjepa, name).__doc__


def test_the_index_and_the_readme_lead_to_every_page() -> None:
    for start in ("docs/index.md", "README.md"):
        linked = set(re.findall(r"\]\((?:docs/)?([\w-]+\.md)", texts()[start]))
        pages = {page.removeprefix("docs/") for page in texts() if page.startswith("docs/")} - {"index.md"}
        missing = pages - linked - ({"detection.md"} if start == "README.md" else set())
        assert missing == set(), start


def test_links_lead_to_headings_that_there_are() -> None:
    def slugs(text: str) -> set[str]:
        titles = re.findall(r"(?m)^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.S))
        return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}

    for page, text in texts().items():
        for target, anchor in re.findall(r"\]\(([^)#\s]*)#([^)]+)\)", text):
            if "://" in target:
                continue
            folder = page.rpartition("/")[0]
            there = f"{folder}/{target}".lstrip("/") if target else page
            assert anchor in slugs(texts()[there]), f"{page} links to {target}#{anchor}"
