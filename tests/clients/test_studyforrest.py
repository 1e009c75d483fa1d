from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clients.errors import SourceError
from clients.studyforrest import FILM, read_scanpath

HEADING = "onset\tduration\tlabel\tstart_x\tstart_y\tend_x\tend_y\tamp\n"
ROWS = (
    "0.000\t0.500\tFIXA\t640.0\t273.0\t640.0\t273.0\t0.1\n"
    "0.500\t0.020\tSACC\t640.0\t273.0\t320.0\t136.5\t6.0\n"
    "0.520\t0.300\tPURS\t320.0\t136.5\t330.0\t136.5\t0.2\n"
    "0.900\t0.250\tFIXA\t310.0\t130.0\t330.0\t143.0\t0.4\n"
)


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_fixations_alone_are_read_with_their_middle(tmp_path: Path) -> None:
    path = read_scanpath(written(tmp_path, "run-1_events.tsv", HEADING + ROWS))
    assert len(path) == 2
    assert path.onset_ns.tolist() == [0, 900_000_000]
    assert path.duration_ns.tolist() == [500_000_000, 250_000_000]
    np.testing.assert_allclose(path.x, [0.5, 0.25])
    np.testing.assert_allclose(path.y, [0.5, 0.25])
    assert path.frame == FILM


def test_runs_follow_one_another(tmp_path: Path) -> None:
    for run in (2, 1):
        written(tmp_path, f"run-{run}_events.tsv", HEADING + ROWS)
    path = read_scanpath(tmp_path)
    assert path.run.tolist() == [0, 0, 1, 1]
    assert path.onset_ns.tolist() == [0, 900_000_000, 2_150_000_000, 3_050_000_000]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("onset\tduration\tlabel\n0\t1\tFIXA\n", "start_x is missing"),
        (HEADING + "0.0\tlong\tFIXA\t1\t1\t1\t1\t0\n", "line 2"),
        (HEADING + "0.0\tnan\tFIXA\t1\t1\t1\t1\t0\n", "line 2"),
        (HEADING + "0.0\t0.2\tFIXA\n", "line 2"),
        (HEADING + "-1\t0.2\tFIXA\t1\t1\t1\t1\t0\n", "not negative"),
        (HEADING + "0.0\t0.2\tSACC\t1\t1\t1\t1\t0\n", "labelled FIXA"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SourceError, match=said):
        read_scanpath(written(tmp_path, "a_events.tsv", text))


def test_a_folder_without_tables_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no table"):
        read_scanpath(tmp_path)
    with pytest.raises(SourceError, match="can't be read"):
        read_scanpath(tmp_path / "nothing_events.tsv")


def test_a_real_scanpath(recordings: Path) -> None:
    path = read_scanpath(recordings / "studyforrest")
    assert len(path) == 11_819
    assert set(path.run.tolist()) == set(range(8))
    assert (np.diff(path.onset_ns) > 0).all()
    inside = (path.x >= 0) & (path.x <= 1) & (path.y >= 0) & (path.y <= 1)
    assert inside.mean() > 0.99
    assert 0.1e9 < np.median(path.duration_ns) < 0.5e9
