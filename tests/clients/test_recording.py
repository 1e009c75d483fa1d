"""Gaze from tables and .mat files: names, units and origins; and what is said when a file is not understood."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io

from clients.andersson import read_andersson, read_labels
from clients.errors import OptionError, SourceError, UnitsUnknown
from clients.fixations import Sample
from clients.recording import TableOptions, parse_columns, read_table
from clients.units import FrameSize


def table(tmp_path: Path, text: str, **options: Any) -> list[Sample]:
    path = tmp_path / "gaze.csv"
    path.write_text(text)
    options = {"columns": {}, "size_px": (200.0, 100.0), "frame": FrameSize(20.0, 10.0)} | options
    return list(read_table(path, TableOptions(**options)).samples())


def rows(*lines: str, header: str) -> str:
    return "\n".join([header, *lines]) + "\n"


def test_seconds_and_pixels_by_the_numbers(tmp_path: Path) -> None:
    samples = table(tmp_path, rows("10.0,100,50", "10.004,110,60", "10.008,120,70", header="timestamp,x,y"))
    assert samples[0] == Sample(10_000_000_000, 0.5, 0.5, 1.0)
    assert [sample.time_ns for sample in samples] == [10_000_000_000, 10_004_000_000, 10_008_000_000]
    assert samples[2] == Sample(10_008_000_000, 0.6, 0.7, 1.0)


@pytest.mark.parametrize(
    ("header", "line", "expected"),
    [
        ("timestamp [ns],gaze x [px],gaze y [px]", "1700000000123456789,20,30", (1700000000123456789, 0.1, 0.3)),
        ("t_ms,x_norm,y_norm", "1500.5,0.25,0.75", (1_500_500_000, 0.25, 0.75)),
        ("gaze_timestamp,norm_pos_x,norm_pos_y", "3.25,0.25,0.75", (3_250_000_000, 0.25, 0.25)),
        ("time(us),x_px,y_px", "2000000,50,50", (2_000_000_000, 0.25, 0.5)),
        ("Recording timestamp [ms],Gaze point X [DACS px],Gaze point Y [DACS px]", "7,100,10", (7_000_000, 0.5, 0.1)),
        ("time [s],x [deg],y [deg]", "1,0,-2.5", (1_000_000_000, 0.5, 0.25)),
    ],
)
def test_units_by_the_header(tmp_path: Path, header: str, line: str, expected: tuple[int, float, float]) -> None:
    step = {"ns": 4_000_000, "ms": 4, "us": 4000}.get(header.split(",")[0].strip("()[]").rstrip("])")[-2:], 0.004)
    first, *others = line.split(",")
    later = [
        ",".join([repr(type(step)(float(first)) + step) if step != 4_000_000 else str(int(first) + 4_000_000), *others])
    ]
    samples = table(tmp_path, rows(line, *later, header=header))
    assert samples[0].time_ns == expected[0]
    assert (samples[0].x, samples[0].y) == pytest.approx(expected[1:])


@pytest.mark.parametrize(
    ("step", "unit_ns"), [(0.004, 1_000_000_000), (16.7, 1_000_000), (2000, 1_000), (8_333_333, 1)]
)
def test_time_units_by_their_steps(tmp_path: Path, step: float, unit_ns: int) -> None:
    lines = [f"{at * step},0.5,0.5" for at in range(1, 20)]
    samples = table(tmp_path, rows(*lines, header="time,x,y"))
    assert samples[3].time_ns == pytest.approx(4 * step * unit_ns, abs=1)


def test_options_go_before_names_and_numbers(tmp_path: Path) -> None:
    text = rows("5,30,40,70,0.5", "9,30,40,70,0.5", header="frame,a,b,c,quality")
    samples = table(
        tmp_path,
        text,
        columns=parse_columns("timestamp=frame, x=b, y=c, confidence=quality"),
        time_unit="ms",
        gaze_unit="px",
        origin="bottom",
    )
    assert samples[0] == Sample(5_000_000, 0.2, pytest.approx(0.3), 0.5)  # type: ignore[arg-type]


def test_degrees_count_from_the_centre(tmp_path: Path) -> None:
    text = rows("1,2,3", "1.01,0,0.001", header="t,x,y")
    (sample, _) = table(tmp_path, text, gaze_unit="deg", origin="bottom")
    assert (sample.x, sample.y) == pytest.approx((0.6, 0.2))


def test_lost_samples(tmp_path: Path) -> None:
    lines = ["1.000,0,0", "1.002,nan,5", "1.004,,", "nan,80,80", ",80,80", "1.010,x,80", "1.012,80,inf", "1.014,80,80"]
    samples = table(tmp_path, rows(*lines, header="timestamp,x,y"))
    assert [sample.time_ns is None for sample in samples] == [False] * 3 + [True] * 2 + [False] * 3
    lost = [math.isnan(sample.x) or math.isnan(sample.y) for sample in samples]
    assert lost == [True, True, True, False, False, True, True, False]


def test_short_rows_tabs_and_a_byte_order_mark(tmp_path: Path) -> None:
    samples = table(tmp_path, "\ufefftimestamp\tx\ty\n1.0\t80\t90\n1.002\t80\n\n1.004\t80\t90\n")
    assert len(samples) == 3
    assert math.isnan(samples[1].y)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("timestamp,x,y\n", "no rows"),
        ("a,b,c\n1,2,3\n", r"no column for timestamp and x and y; it has: a, b, c.*--columns timestamp=NAME,x=NAME"),
        ("timestamp,x\n1,2\n", r"no column for y; it has: timestamp, x"),
        ("timestamp,x,y\n1,nan,nan\n2,0,0\n", "no sample with a time and a position"),
        ("timestamp,x,y\n,1,1\n", "(no sample with|--time-unit)"),
        ("timestamp,x,y\n1,500,500\n1.2,500,500\n", "nothing says the unit of column 'timestamp'.*--time-unit"),
        ("timestamp,x,y\n1.001,5,5\n1.002,5,5\n", "--gaze-unit"),
    ],
)
def test_tables_that_are_not_understood(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SourceError, match=said) as refused:
        table(tmp_path, text)
    assert "gaze.csv" in str(refused.value)
    assert refused.value.exit_code == 2


def test_a_named_column_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no column 'u' for x; it has: timestamp, v, y"):
        table(tmp_path, rows("1,2,3", header="timestamp,v,y"), columns={"x": "u"})


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="No such file"):
        read_table(tmp_path / "gone.csv", TableOptions({}))


def test_pixels_without_a_picture(tmp_path: Path) -> None:
    text = rows("1,80,80", "1.01,80,80", header="timestamp,x,y")
    with pytest.raises(UnitsUnknown, match="--gaze-frame"):
        table(tmp_path, text, size_px=None)
    with pytest.raises(UnitsUnknown, match="--px-per-degree"):
        table(tmp_path, text, gaze_unit="deg", frame=None)


@pytest.mark.parametrize("text", ["x", "x=", "q=a", "x=a,,y=b"])
def test_columns_that_are_none(text: str) -> None:
    with pytest.raises(OptionError, match="--columns"):
        parse_columns(text)


def write_mat(path: Path, **changes: Any) -> Path:
    generator = np.random.default_rng(0)
    position = np.column_stack(
        [
            1e9 + np.arange(50) * 2000.0,
            np.full((50, 2), 20.0),
            generator.uniform(300, 700, (50, 2)),
            np.ones(50),
        ]
    )
    position[10, 3:5] = 0
    position[20, 3] = np.nan
    position[30, 0] = 0
    data = {
        "sampFreq": 240.0,
        "viewDist": 0.67,
        "screenDim": np.array([0.38, 0.30]),
        "screenRes": np.array([1024, 768]),
        "pos": position,
    } | changes
    scipy.io.savemat(path, {"ETdata": {key: value for key, value in data.items() if value is not None}})
    return path


def test_andersson(tmp_path: Path) -> None:
    path = write_mat(tmp_path / "viewer.mat")
    track = read_andersson(path)
    samples = list(track.samples())
    position = scipy.io.loadmat(path, squeeze_me=True, struct_as_record=False)["ETdata"].pos
    assert samples[0] == Sample(1_000_000_000_000, position[0, 3] / 1024, position[0, 4] / 768)
    assert samples[1].time_ns == 1_000_002_000_000, "by the time column, not by sampFreq"
    assert math.isnan(samples[10].x)
    assert math.isnan(samples[20].x)
    assert samples[30].time_ns is None
    assert track.frame is not None
    assert track.frame.px_per_degree(1024, 768) == pytest.approx((31.5, 29.9), abs=0.05)
    assert track.length_s == pytest.approx(0.098)
    assert (read_labels(path) == 1).all()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pos": np.zeros((5, 3))}, "6 columns"),
        ({"pos": np.zeros((50, 6))}, "no sample with a time"),
        ({"screenDim": np.array([0.38])}, "screenDim"),
        ({"viewDist": None}, "viewDist"),
    ],
)
def test_mat_files_that_are_not_understood(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SourceError, match=said):
        read_andersson(write_mat(tmp_path / "viewer.mat", **changes))


def test_files_that_are_no_recording(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="can't be read"):
        read_andersson(tmp_path / "gone.mat")
    (tmp_path / "text.mat").write_text("not a mat file, " * 20)
    with pytest.raises(SourceError, match=r"no \.mat file"):
        read_andersson(tmp_path / "text.mat")
    scipy.io.savemat(tmp_path / "other.mat", {"something": 1.0})
    with pytest.raises(SourceError, match=r"no struct ETdata; it has: something"):
        read_andersson(tmp_path / "other.mat")


def test_real_recordings(recordings: Path) -> None:
    """Among them two whose last rows are zeros: a clock that jumps back to 0."""
    paths = sorted((recordings / "andersson2017").rglob("*.mat"))
    assert len(paths) == 13
    for path in paths:
        track = read_andersson(path)
        assert 5 < track.length_s < 11
        assert track.frame is not None
        assert track.frame.px_per_degree(1024, 768) == pytest.approx((31.5, 29.9), abs=0.05)
    export = read_table(recordings / "pupil_core_export/gaze_positions.csv", TableOptions({}))
    assert len(export) == 2054
    assert "bottom" in export.notes[1]
    first = next(export.samples())
    assert first.time_ns == 329_367_897_894_000
    assert (first.x, first.y, first.confidence) == pytest.approx((0.5010134, 0.5105638, 0.9800581))
