"""Two workers on one data directory: the second is refused by name and changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.story import WAIT_S, Home, ready, send_all
from tests.faults.whole import ORDER, Whole, stop
from tests.helpers import free_port, run_rjepa, wait_until


def seen(data: Path) -> dict[str, tuple[int, int, bytes]]:
    """Every file of a directory: its inode, when it was changed last, its bytes."""
    files = (path for path in sorted(data.rglob("*")) if path.is_file())
    return {
        str(path.relative_to(data)): (path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes()) for path in files
    }


@pytest.mark.timeout(900)
def test_the_second_is_refused_and_changes_nothing(whole: Whole, tmp_path: Path) -> None:
    home = whole.home(tmp_path / "data")
    first = home.worker(checkpoint_every_s=3600.0)
    send_all(home.ingest, ORDER[:20])
    ready(first)

    def second() -> str | None:
        before = seen(home.data_dir)
        ports = ["--ingest", f"tcp://127.0.0.1:{free_port()}", "--publish", f"tcp://127.0.0.1:{free_port()}"]
        done = run_rjepa("worker", "--data-dir", home.data_dir, "--weights", "random", *ports, limit_s=WAIT_S)
        assert done.returncode == 3, done.stderr
        return done.stderr if seen(home.data_dir) == before else None

    # Once more where the first one itself had something to write down meanwhile.
    said = wait_until(second, WAIT_S, "a directory that is as it was")
    lines = said.splitlines()
    assert len(lines) == 1, said
    assert f"{home.data_dir} is in use by another worker (process {first.pid})" in lines[0]
    assert "--data-dir" in lines[0]
    send_all(home.ingest, ORDER)
    stop(first)
    print(whole.judge(home.data_dir))


@pytest.mark.timeout(900)
def test_of_two_that_start_at_once_one_gets_it(whole: Whole, tmp_path: Path) -> None:
    home = whole.home(tmp_path / "data")
    other = Home.at(whole.nursery, home.data_dir)
    starting = {home.ingest: home.worker(), other.ingest: other.worker()}

    def refused() -> list[str]:
        return [address for address, process in starting.items() if process.ended() is not None]

    (address,) = wait_until(refused, WAIT_S, "the one that comes too late")
    loser = starting.pop(address)
    assert loser.ended() == 3
    assert "is in use by another worker" in loser.said().splitlines()[-1]
    ((address, winner),) = starting.items()
    send_all(address, ORDER)
    stop(winner)
    print(whole.judge(home.data_dir))
