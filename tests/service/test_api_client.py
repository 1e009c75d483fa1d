"""``rjepa.Api`` without a worker: tables of every kind, what it says where nobody answers, and its shapes."""

from __future__ import annotations

import importlib.util
import math
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import polars
import pyarrow
import pytest

import rjepa
from clients import api, api_answers, api_events
from clients.errors import BadFixation, OptionError
from service.api import diagnostics_shapes, shapes, trajectory
from service.records import numbers
from service.storage import open_reader
from tests.helpers import ROOT
from tests.service.api_support import Lab, interface

PAIRS = {
    "Ready": shapes.Ready,
    "Model": shapes.Model,
    "Alarm": shapes.AlarmTold,
    "AlarmOn": shapes.AlarmOn,
    "Stream": shapes.Stream,
    "Embedding": shapes.Embedding,
    "Gaze": shapes.Point,
    "Record": shapes.RecordTold,
    "LossPoint": shapes.LossPoint,
    "LossPosition": shapes.LossPosition,
    "Loss": shapes.Loss,
    "TrajectoryPoint": trajectory.TrajectoryPoint,
    "Trajectory": trajectory.Trajectory,
    "Checkpoint": shapes.Checkpoint,
    "StreamDone": shapes.StreamDone,
    "Look": diagnostics_shapes.Look,
    "Warned": diagnostics_shapes.WarnedTold,
    "Interval": diagnostics_shapes.IntervalTold,
    "OwnSkills": diagnostics_shapes.OwnSkills,
    "Position": diagnostics_shapes.PositionTold,
    "Places": diagnostics_shapes.Places,
    "Representation": diagnostics_shapes.Representation,
    "Fidelity": diagnostics_shapes.FidelityTold,
    "Gradient": diagnostics_shapes.Gradient,
}


@pytest.fixture(scope="module")
def reading(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[rjepa.Api, Path]]:
    """A client of an interface on records with every kind of hole in them."""
    lab = Lab(tmp_path_factory.mktemp("data"))
    lab.learn([None, 1.0, 0.5, 0.1 + 0.2, None], sequence_id="a")
    lab.learn([None], skipped="lost", gaze=None, onset=None, duration=None, position=None, embedding=None)
    lab.restore(fork=4)
    lab.learn([0.25, 0.125])
    lab.claim("empty")
    with interface(lab.folder) as http, rjepa.Api(str(http.base_url)) as made:
        yield made, lab.folder / "rjepa.db"
    lab.journal.close()


def in_the_database(database: Path, timeline: int) -> list[dict[str, Any]]:
    """The rows of a history by hand: of timeline 1 the fork at journal id 4, of 0 all."""
    chosen = "timeline = 1 OR id <= 4" if timeline else "timeline = 0"
    with closing(open_reader(database)) as reader:
        rows = reader.execute(f"SELECT * FROM records WHERE stream = 's1' AND ({chosen}) ORDER BY seq").fetchall()
    return [{name: row[name] for name in row.keys() if name != "id"} for row in rows]  # noqa: SIM118


def plain(table: Any) -> dict[str, list[Any]]:
    """Any kind of table as lists by column, None where there is nothing."""
    if isinstance(table, pandas.DataFrame):
        columns = {name: list(table[name]) for name in table}
    else:
        columns = table.to_pydict() if isinstance(table, pyarrow.Table) else table.to_dict(as_series=False)

    def known(value: Any) -> Any:
        if isinstance(value, list | np.ndarray):
            return [float(each) for each in value]
        return None if value is None or (isinstance(value, float) and math.isnan(value)) else value

    return {name: [known(value) for value in values] for name, values in columns.items()}


@pytest.mark.parametrize("pyarrow_there", [True, False])
@pytest.mark.parametrize("kind", ["pandas", "polars", "pyarrow"])
def test_a_table_is_what_the_database_has(
    reading: tuple[rjepa.Api, Path], kind: str, pyarrow_there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not pyarrow_there:
        if kind == "pyarrow":
            return
        monkeypatch.setattr(api.api_tables, "installed", lambda library: library != "pyarrow")
    made, database = reading
    for timeline in (None, 0):
        rows = in_the_database(database, 0 if timeline == 0 else 1)
        told = plain(made.records("s1", as_=kind, timeline=timeline, embeddings=True))
        for row in rows:
            row["embedding"] = None if row["embedding"] is None else numbers(row["embedding"]).tolist()
        assert list(told) == list(rows[0]), "the columns, in their order"
        assert told == {name: [row[name] for row in rows] for name in rows[0]}
    part = plain(made.records("s1", as_=kind, after=0, limit=2))
    assert part["seq"] == [1, 2]
    assert "embedding" not in part
    assert len(made.records("empty", as_=kind)) == 0


def test_kinds_of_numbers_are_the_same_whatever_the_table(reading: tuple[rjepa.Api, Path]) -> None:
    made, _ = reading
    assert made.records("s1", as_="polars").schema["position"] == polars.Int64
    assert made.records("s1", as_="pyarrow").schema.field("seq").type == pyarrow.int64()
    frame = made.records("s1")
    assert isinstance(frame, pandas.DataFrame), "the first that is installed"
    assert (frame["seq"].dtype, frame["prediction_error"].dtype) == (np.int64, np.float64)


def test_without_a_library_for_tables(reading: tuple[rjepa.Api, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    made, database = reading
    with pytest.raises(OptionError, match='pip install pandas, or ask for as_="rows"'):
        made.records("s1")
    with pytest.raises(OptionError, match="pip install polars"):
        made.records("s1", as_="polars")
    with pytest.raises(OptionError, match="none of pandas, polars, pyarrow, rows"):
        made.records("s1", as_="excel")  # type: ignore[arg-type]
    rows = [{name: value for name, value in row.items() if name != "embedding"} for row in in_the_database(database, 1)]
    assert made.records("s1", as_="rows") == rows


def test_where_no_server_answers(tmp_path: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        with rjepa.Api(f"http://127.0.0.1:{nobody.getsockname()[1]}") as made:
            for call in (made.model, lambda: next(made.events()), lambda: made.download("c1", tmp_path / "c1")):
                with pytest.raises(rjepa.ApiError, match="start one with `rjepa serve`") as caught:
                    call()
                assert (caught.value.status, caught.value.code, caught.value.exit_code) == (None, "unreachable", 4)
    assert not list(tmp_path.iterdir())
    with pytest.raises(rjepa.ApiError, match="no address like http"):
        rjepa.Api("127.0.0.1:8000").model()


def test_where_something_else_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        html = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>"

        def answer() -> None:
            for body in (b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno", b"what?\r\n\r\n", b"", html):
                with other.accept()[0] as connection:
                    connection.recv(1 << 16)
                    connection.sendall(body)

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"http://127.0.0.1:{other.getsockname()[1]}"
        for status, told in ((500, "is it rjepa"), (None, "was cut"), (None, "was cut"), (None, "no JSON")):
            with rjepa.Api(url) as made, pytest.raises(rjepa.ApiError, match=told) as caught:
                made.model()
            assert caught.value.status == status
        thread.join(30.0)


def test_one_that_stays_away_is_waited_for_only_so_long(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    with ExitStack() as stack:
        with interface(tmp_path) as http:
            made = stack.enter_context(rjepa.Api(str(http.base_url)))
            events = made.events(after=0, patience_s=0.3)
            lab.learn([0.5])
            first = next(events)
            assert isinstance(first, api_events.RecordEvent)
            assert first.record.prediction_error == 0.5
        with pytest.raises(rjepa.ApiError, match="no server answers"):
            next(events)
    lab.journal.close()


def test_a_patch_of_another_shape_is_refused() -> None:
    with rjepa.Api() as made, pytest.raises(BadFixation, match=r"rjepa\.cut makes one"):
        made.embed(np.zeros((50, 50), np.uint8))


@pytest.mark.parametrize("name", PAIRS)
def test_answers_have_the_members_the_interface_tells(name: str) -> None:
    assert set(getattr(api_answers, name).model_fields) == set(PAIRS[name].model_fields)


def test_it_brings_no_torch_and_no_web_server() -> None:
    script = "import rjepa, sys; rjepa.Api().close(); print(*sorted({m.split('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    heavy = {"torch", "fastapi", "uvicorn", "zmq", "cv2", "pandas", "polars", "pyarrow"}
    assert not heavy & set(done.stdout.split())
