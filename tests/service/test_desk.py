"""What is answered about a command whose turn does not come."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import zmq

from model.learner import Learner
from service import desk as desks
from service.checkpoints import Checkpoints
from service.control import ControlClient, ControlServer
from service.desk import Desk
from service.features import Features
from service.journal import Journal


def nothing() -> dict[str, Any]:
    return {}


@contextmanager
def at_work(folder: Path) -> Iterator[tuple[ControlClient, Journal]]:
    """A desk whose learning loop never comes."""
    journal = Journal(folder / "rjepa.db")
    learner, features = cast(Learner, None), cast(Features, None)
    desk = Desk(journal, Checkpoints(folder / "checkpoints"), learner, features, status=nothing, wake=lambda: None)
    try:
        with zmq.Context() as context:
            server = ControlServer(context, folder, desk)
            server.start()
            try:
                yield ControlClient(folder), journal
            finally:
                server.stop()
    finally:
        journal.close()


def test_a_command_that_must_be_done_first_says_that_it_will_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No answer at all would read as "it did not happen", and be asked again: a restore twice."""
    monkeypatch.setattr(desks, "DONE_S", 0.2)
    with at_work(tmp_path) as (client, journal):
        answer = client.ask({"op": "command", "name": "checkpoint", "arguments": {}}, timeout_s=10)
        (entry,) = journal.entries(0, 10)
    assert (answer["ok"], answer["status"], answer["code"]) == (False, 504, "pending")
    assert f"journalled as {entry.id}" in answer["detail"]


def test_diagnostics_that_are_off_or_of_nobody_are_refused(tmp_path: Path) -> None:
    with at_work(tmp_path) as (client, journal):
        journal.claim("s", 1, 1.0)
        for what, stream, status, code in [
            ("representation", "s", 409, "diagnostics_off"),
            ("gradient", None, 409, "diagnostics_off"),
            ("gradient", "nobody", 404, "unknown_stream"),
            ("representation", ["s"], 404, "unknown_stream"),
            ("everything", "s", 422, "bad_argument"),
        ]:
            answer = client.ask({"op": "diagnostics", "what": what, "stream": stream}, timeout_s=10)
            assert (answer["status"], answer["code"]) == (status, code)


def test_other_commands_are_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desks, "APPLIED_S", 0.2)
    with at_work(tmp_path) as (client, journal):
        answer = client.ask({"op": "command", "name": "pause", "arguments": {}}, timeout_s=10)
        (entry,) = journal.entries(0, 10)
    assert answer == {"ok": True, "id": entry.id, "applied": False}
