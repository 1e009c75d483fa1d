"""What is answered about a command whose turn does not come, and how patches wait for theirs."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import zmq
from numpy.typing import NDArray

from model.learner import Learner
from service import desk as desks
from service.checkpoints import Checkpoints
from service.control import ControlClient, ControlServer
from service.desk import Desk
from service.features import Features
from service.journal import Journal
from tests.helpers import patches, wait_until
from tests.service.bench import CONFIG


def nothing() -> dict[str, Any]:
    return {}


class Eye:
    """Sees in a patch its mean colours, again and again; counts how often it looked."""

    looks = 0

    def of_patch(self, patch: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.looks += 1
        return np.resize(patch.mean(axis=(0, 1)) / 255.0, CONFIG.features).astype(np.float32)


@contextmanager
def at_work(folder: Path) -> Iterator[tuple[ControlClient, Journal]]:
    """A desk whose learning loop never comes."""
    with a_desk(folder, cast(Learner, None), cast(Features, None)) as (_, client, journal):
        yield client, journal


@contextmanager
def a_desk(folder: Path, learner: Learner, features: Features) -> Iterator[tuple[Desk, ControlClient, Journal]]:
    """A desk; the test is its learning loop."""
    journal = Journal(folder / "rjepa.db")
    desk = Desk(journal, Checkpoints(folder / "checkpoints"), learner, features, status=nothing, wake=lambda: None)
    try:
        with zmq.Context() as context:
            server = ControlServer(context, folder, desk)
            server.start()
            try:
                yield desk, ControlClient(folder), journal
            finally:
                server.stop()
    finally:
        journal.close()


def embed(pictures: NDArray[np.uint8]) -> dict[str, Any]:
    """The request for the embeddings of ``pictures``."""
    told = [{"height": 50, "width": 50, "rgb": base64.b64encode(one.tobytes()).decode()} for one in pictures]
    return {"op": "embed", "patches": told}


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


def test_many_patches_are_looked_at_one_a_moment_and_embedded_by_the_weights_of_one(tmp_path: Path) -> None:
    learner, eye, pictures = Learner(CONFIG, seed=0), Eye(), patches(3)
    with a_desk(tmp_path, learner, cast(Features, eye)) as (desk, client, _), ThreadPoolExecutor(1) as pool:
        future = pool.submit(client.ask, embed(pictures), 30.0)
        wait_until(lambda: desk._patches, 10.0, "the call")
        desk.serve(idle=False)
        assert eye.looks == 0, "fixations go before"
        for looks in (1, 2):
            desk.serve(idle=True)
            assert eye.looks == looks
            assert not future.done()
        learner = desk._learner = Learner(CONFIG, seed=1)  # it learns meanwhile
        desk.serve(idle=True)
        told = future.result(10.0)["embeddings"]
        assert told == [learner.embed(Eye().of_patch(one)).tolist() for one in pictures]
        assert not desk._patches


def test_patches_that_get_no_moment_are_given_up_and_the_next_call_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desks, "EMBED_S", 0.3)
    learner, eye = Learner(CONFIG, seed=0), Eye()
    with a_desk(tmp_path, learner, cast(Features, eye)) as (desk, client, _), ThreadPoolExecutor(2) as pool:
        late = [pool.submit(client.ask, embed(patches(count)), 30.0) for count in (2, 1)]
        for answer in late:
            assert (answer.result(10.0)["status"], answer.result()["code"]) == (503, "busy")
        monkeypatch.setattr(desks, "EMBED_S", 30.0)
        future = pool.submit(client.ask, embed(patches(1)), 30.0)
        wait_until(lambda: desk._patches, 10.0, "the call")
        desk.serve(idle=True)
        assert len(future.result(10.0)["embeddings"]) == 1
        future = pool.submit(client.ask, embed(patches(2)), 30.0)
        wait_until(lambda: desk._patches, 10.0, "the call")
        desk.close()
        assert future.result(10.0)["code"] == "stopping"


def test_nobody_is_told_that_a_checkpoint_is_taken_next_time_whose_turn_may_have_come(tmp_path: Path) -> None:
    with (
        a_desk(tmp_path, cast(Learner, None), cast(Features, None)) as (desk, client, _),
        ThreadPoolExecutor(2) as pool,
    ):
        for name, told in (("checkpoint", "before or next time, see GET /v1/checkpoints"), ("pause", "next time")):
            future = pool.submit(client.ask, {"op": "command", "name": name}, 30.0)
            wait_until(lambda: desk._waiting, 10.0, "the command")
            desk.close()
            answer = future.result(10.0)
            assert (answer["status"], answer["code"]) == (503, "stopping")
            assert answer["detail"].endswith(told)
            desk._stopping = False
