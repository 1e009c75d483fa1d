"""What the dashboard costs: the server's time to a first picture of a million fixations, the browser's processor time
while fixations come, and bytes on the wire. It prints what it measured; docs/dashboard.md says what was found once."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from service.journal import Turn
from service.records import Record, pack
from service.schema import TRIVIAL_ERRORS
from tests.helpers import Running, free_port, start_rjepa, wait_until
from tests.service.api_support import Lab, working
from tests.service.api_support import _admitted as admitted
from tests.soak.million import long_history

pytestmark = pytest.mark.soak

COUNT = int(os.environ.get("RJEPA_TEST_RECORDS", "1000000"))
WATCHED_S = float(os.environ.get("RJEPA_TEST_WATCHED_S", "30"))
BEFORE = 5000
TICK_HZ = os.sysconf("SC_CLK_TCK")


@contextmanager
def api(data_dir: Path, logs: Path) -> Iterator[tuple[Running, str]]:
    port = free_port()
    with start_rjepa("api", f"--data-dir={data_dir}", f"--http=127.0.0.1:{port}", logs=logs) as process:
        base = f"http://127.0.0.1:{port}"

        def live() -> bool:
            assert process.alive(), process.stderr()[-3000:]
            try:
                return httpx.get(f"{base}/livez", timeout=10).status_code == 200
            except httpx.TransportError:
                return False

        wait_until(live, 60.0, "the interface")
        yield process, base


def test_the_first_picture_of_a_million_fixations(tmp_path: Path) -> None:
    long_history(tmp_path / "data", COUNT)
    with (
        api(tmp_path / "data", tmp_path / "logs") as (process, base),
        httpx.Client(base_url=base, timeout=300) as client,
    ):

        def timed(path: str) -> tuple[float, float, httpx.Response]:
            used, begun = cpu_s([process.pid]), time.perf_counter()
            got = client.get(path)
            return time.perf_counter() - begun, cpu_s([process.pid]) - used, got

        for what in ("first page, nothing read before", "page while all is being read"):
            took, used, got = timed("/")
            assert "polyline" in got.text
            print(f"\n{COUNT} records, {what}: {took:.2f} s, {used:.2f} s of processor", flush=True)
        took, used, got = timed("/v1/streams/long/loss?points=2000")
        assert got.json()["count"] == COUNT - 1
        print(f"the curve once all is read: {took:.2f} s, {used:.2f} s of processor, {len(got.content)} bytes")
        for path in ("/", "/v1/streams/long/loss?points=2000", "/v1/streams/long/loss?after=500000&until=500200"):
            took, used, _ = timed(path)
            print(f"{path} after that: {took:.2f} s, {used:.2f} s of processor", flush=True)


class Feed:
    """Writes fixations and their records at a rate, as a worker that never lags would."""

    def __init__(self, lab: Lab, stream: str) -> None:
        self.lab, self.stream, self.seq = lab, stream, 0
        self.generator = np.random.default_rng(0)
        lab.claim(stream)

    def bring(self, count: int) -> None:
        now = time.time()
        seqs = range(self.seq, self.seq + count)
        self.lab.journal.append([admitted(self.stream, seq, now, "raw") for seq in seqs])
        records = [self._record(seq, now) for seq in seqs]
        self.lab.journal.put_turn(Turn(records[-1].id, list(records)), now)
        self.seq += count

    def _record(self, seq: int, now: float) -> Record:
        error = float(self.generator.gamma(4.0, 0.1))
        return Record(
            id=seq + 1,
            stream=self.stream,
            seq=seq,
            time=now,
            timeline=0,
            onset=0.25 * seq,
            duration=0.2,
            gaze=(float(self.generator.uniform()), float(self.generator.uniform())),
            position=seq,
            prediction_error=error,
            trivial_error={name: error + 0.02 for name in TRIVIAL_ERRORS},
            effective_rank=30.0,
            update_norm=0.01,
            latency_ms=60.0,
            embedding=pack(self.generator.normal(size=256).astype(np.float32)),
        )

    @contextmanager
    def at(self, rate: float) -> Iterator[None]:
        """``rate`` fixations a second while the block lasts."""
        over = threading.Event()

        def run() -> None:
            begun, first = time.monotonic(), self.seq
            while not over.wait(max(0.02, 0.9 / rate)):
                due = int(rate * (time.monotonic() - begun)) - (self.seq - first)
                if due > 0:
                    self.bring(due)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def descendants(pid: int) -> list[int]:
    """A process and all that come from it."""
    parents = {}
    for entry in Path("/proc").iterdir():
        try:
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except (ValueError, OSError):
            continue
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def cpu_s(pids: list[int]) -> float:
    """Processor time of these processes, those that have ended meanwhile not counted."""
    total = 0.0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += (int(fields[11]) + int(fields[12])) / TICK_HZ
    return total


def browser_pids() -> list[int]:
    """The browser's processes, this one's driver not among them."""
    return [pid for pid in descendants(os.getpid()) if "chrom" in Path(f"/proc/{pid}/comm").read_text()]


def test_what_a_browser_spends_while_fixations_come(tmp_path: Path, browser_path: str) -> None:
    from playwright.sync_api import sync_playwright

    lab = Lab(tmp_path)
    feed = Feed(lab, "s1")
    feed.bring(BEFORE)
    with working(tmp_path), api(tmp_path, tmp_path / "logs") as (interface, base), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox", "--disable-gpu"])
        page: Any = browser.new_page(viewport={"width": 1920, "height": 1200})
        wire: dict[str, list[int]] = {}
        session = page.context.new_cdp_session(page)
        session.send("Network.enable")
        kinds: dict[str, str] = {}
        session.on("Network.responseReceived", lambda told: kinds.update({told["requestId"]: told["type"]}))
        session.on(
            "Network.loadingFinished",
            lambda told: wire.setdefault(kinds.get(told["requestId"], "?"), []).append(told["encodedDataLength"]),
        )
        page.goto(base)
        page.wait_for_function("() => document.querySelector('#curve-count').textContent.includes('live')")
        page.wait_for_load_state("load")
        page.wait_for_timeout(3000)
        for kind, sizes in sorted(wire.items()):
            print(f"\nbytes on the wire, {kind}: {sum(sizes)} in {len(sizes)} answers", end="")
        own = sum(sum(wire.get(kind, [])) for kind in ("Document", "Script", "Stylesheet"))
        print(f"\nthe page and its files: {own} bytes", flush=True)
        for rate in (0, 4, 50):
            with feed.at(rate) if rate else contextmanager(lambda: iter([None]))():
                page.wait_for_timeout(2000)
                seq, begun = feed.seq, time.monotonic()
                used, served = cpu_s(browser_pids()), cpu_s([interface.pid])
                page.wait_for_timeout(1000 * WATCHED_S)
                took = time.monotonic() - begun
                browser_share = (cpu_s(browser_pids()) - used) / took
                served_share = (cpu_s([interface.pid]) - served) / took
                told = f"{(feed.seq - seq) / took:.1f} fixations/s over {took:.0f} s"
            print(
                f"{told}: browser {100 * browser_share:.1f} % of a core, interface {100 * served_share:.1f} %",
                flush=True,
            )
        browser.close()
    lab.journal.close()
