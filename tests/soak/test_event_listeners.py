"""Hundreds of listeners to events at one interface process, some of which never read: memory, work, and what came."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import httpx
import pytest

from tests.faults.lab import FLAT_KB, resident_kb
from tests.helpers import Running, free_port, start_rjepa, wait_until
from tests.service.api_support import Lab
from tests.service.events_support import newest

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]

LISTENERS, DEAF = 200, 40
"""At a time, and how many of them take nothing."""
ROUNDS, EACH = 100, 15
"""Commits, 0.1 s apart at least, and fixations of each."""


def cpu_s(process: Running) -> float:
    """Processor time a process has used."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def listen(port: int, last: int, begun: asyncio.Queue[int]) -> list[int]:
    """The ids of the records that come, up to ``last``; ``begun`` is told where it begins."""
    reading, writing = await asyncio.open_connection("127.0.0.1", port)
    writing.write(b"GET /v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    ids: list[int] = []
    at = 0
    while not ids or ids[-1] < last:
        line = await reading.readline()
        assert line, "it ended"
        if line.startswith(b"id: "):
            if not at:
                begun.put_nowait(int(line[4:]))
            at = int(line[4:])
        elif line.startswith(b"event: record"):
            ids.append(at)
    writing.close()
    return ids


async def deaf(port: int) -> None:
    """Asks, and takes nothing until it is cancelled."""
    _, writing = await asyncio.open_connection("127.0.0.1", port, limit=1)
    writing.transport.pause_reading()  # type: ignore[attr-defined]
    writing.write(b"GET /v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    try:
        await asyncio.Event().wait()
    finally:
        writing.close()


def test_two_hundred_listeners_of_whom_forty_never_read(tmp_path: Path) -> None:
    folder, port = tmp_path / "data", free_port()
    folder.mkdir()
    lab = Lab(folder)
    lab.learn([None] * 5)
    words = (f"--data-dir={lab.folder}", f"--http=127.0.0.1:{port}")
    with start_rjepa("api", *words, logs=tmp_path / "logs") as process:

        def answers() -> bool:
            try:
                return httpx.get(f"http://127.0.0.1:{port}/livez", timeout=10.0).status_code == 200
            except httpx.TransportError:
                return False

        wait_until(answers, 60.0, "the interface")
        asyncio.run(_session(lab, process, port))
        assert "Traceback" not in process.stderr()
    lab.journal.close()


async def _session(lab: Lab, process: Running, port: int) -> None:
    begun = newest(lab.folder / "rjepa.db")
    last = begun + ROUNDS * EACH
    silent = [asyncio.create_task(deaf(port)) for _ in range(DEAF)]
    where: asyncio.Queue[int] = asyncio.Queue()
    listeners = [asyncio.create_task(listen(port, last, where)) for _ in range(LISTENERS - DEAF)]
    for _ in listeners:
        assert await asyncio.wait_for(where.get(), 60.0) == begun
    before_kb, before_s, at_s = resident_kb(process.pid), cpu_s(process), time.monotonic()
    for _ in range(ROUNDS):
        await asyncio.to_thread(lab.learn, [0.5] * EACH)
        await asyncio.sleep(0.1)
    heard = await asyncio.gather(*listeners)
    grown_kb, used_s, took_s = resident_kb(process.pid) - before_kb, cpu_s(process) - before_s, time.monotonic() - at_s
    for task in silent:
        task.cancel()
    await asyncio.gather(*silent, return_exceptions=True)
    print(
        f"{LISTENERS} listeners, {DEAF} deaf, {ROUNDS * EACH} records in {took_s:.0f} s: the interface grew by "
        f"{grown_kb} kB, highest {resident_kb(process.pid, 'VmHWM')} kB, and used {used_s:.1f} s of a core"
    )
    assert all(ids == list(range(begun + 1, last + 1)) for ids in heard)
    assert grown_kb < FLAT_KB
