"""The wall clock steps while a worker runs: an hour back, then a day forward.

The worker's ``time.time`` is the test's own (tests/faults/mortal.py); what does not step goes on, as it does where an
operator or a time server sets the clock.
"""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

import pytest

from service.storage import open_reader
from service.vigil import LOOK_S
from tests.faults import mortal
from tests.faults.story import ready, send_all
from tests.faults.whole import LOADED, ORDER, TAKEN, Whole, stop, taken, told
from tests.helpers import wait_until

HOUR_S, DAY_S = 3600.0, 86_400.0


@pytest.mark.timeout(900)
def test_the_clock_steps_back_and_forward(whole: Whole, tmp_path: Path) -> None:
    home = whole.home(tmp_path / "data")
    clock = mortal.Clock(tmp_path / "clock")
    process = home.worker(clock=str(tmp_path / "clock"))
    ready(process)
    begun_s = time.time()
    for upto, by_s in ((20, 0.0), (40, -HOUR_S), (len(ORDER), DAY_S)):
        clock.step(by_s)
        before = len(told(process, TAKEN))
        send_all(home.ingest, ORDER[:upto])
        taken(process, after=before)
    looked_s = time.monotonic() + 2.5 * LOOK_S
    wait_until(lambda: time.monotonic() > looked_s, 60.0, "two looks at what is silent")
    every = told(process, TAKEN)
    firsts = {name[:11]: name for name in reversed(every)}
    kept = {*firsts.values(), *every[-2:]}
    folder = home.data_dir / "checkpoints"
    wait_until(
        lambda: {path.name for path in folder.iterdir()} == kept, 60.0, "one an hour, and the newest two, to stay"
    )
    assert len(firsts) in (3, 4), "an hour each, and one more where the hour changed meanwhile"
    process.kill()

    with closing(open_reader(home.data_dir / "rjepa.db")) as reader:
        alarms = {row[0] for row in reader.execute("SELECT kind FROM alarms")}
        records = reader.execute("SELECT time, latency_ms FROM records ORDER BY id").fetchall()
    assert not alarms & {"stream_idle", "lag", "data_lost", "checkpoint_bad", "checkpoint_failed"}, (
        "no stream is called silent, nothing is called late"
    )
    steps = [records[at]["time"] - records[at - 1]["time"] for at in (20, 40)]
    assert steps[0] == pytest.approx(-HOUR_S, abs=300.0)
    assert steps[1] == pytest.approx(HOUR_S + DAY_S, abs=300.0)
    assert min(record["latency_ms"] for record in records) >= 0.0

    clock.step(0.0)  # the newest is a day ahead now
    process = home.worker(clock=str(tmp_path / "clock"))
    ready(process)
    newest = max(kept, key=lambda name: name.split("-")[1])
    assert told(process, LOADED) == [newest], "the newest by journal, whatever its date"
    stop(process)
    assert time.time() - begun_s < HOUR_S / 2, "or the steps would say little"
    print(whole.judge(home.data_dir))
