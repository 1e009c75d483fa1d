"""Every shared recording into a live worker by one command each: nothing gets lost on the way."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Serve
from tests.helpers import ROOT


@pytest.mark.soak
def test_every_recording_by_one_command_each(serve: Serve, recordings: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.json"
    with serve() as serving:
        words = [str(recordings), f"--ingest={serving.ingest}", f"--json={rows}"]
        command = [sys.executable, "-m", "clients.recordings_table", *words]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        streams = {stream["stream"]: stream for stream in serving.get("/v1/streams")["streams"]}
    told = json.loads(rows.read_text())
    assert len(told) == len(streams) == 3 + 2 * 3 + 13 + 8
    for row in told:
        assert row["found"] > 0 or "monocular" in row["command"], row
        assert row["found"] == row["sent"] + sum(row["dropped"].values()), row
        assert row["sent"] == row["acked"] == row["learned"], row
    by_worker = [(stream["learned"], stream["dropped"]) for stream in streams.values()]
    assert all(set(skipped) <= {"repeat"} for _, skipped in by_worker), by_worker
    assert sum(row["learned"] for row in told) == sum(n + skipped.get("repeat", 0) for n, skipped in by_worker)
    print(f"{len(told)} recordings: {sum(row['found'] for row in told)} fixations found, {by_worker}")
