"""Readers of all calls in a process of their own: ``python -m tests.soak.readers URL READERS LONG LIVE``.

LONG is a stream with a long history to read, LIVE one that is learned from.

Each asks one call after the other without pause, beginning at another one. They begin at a line ``go``, stop at
``stop``, which is answered once all have, and at the end of the input the counts of answers are printed as JSON.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
import time
from collections import Counter
from typing import Any

import httpx

from tests.helpers import patches

EVENTS_S = 1.0
"""How long a reader listens to events before it goes on to the next call."""
NICENESS = 10
"""Readers are other people's computers: what they use of this one's cores is none of the worker's business."""

Call = tuple[str, str, dict[str, str], Any]


def calls(long: str, live: str, checkpoint: str) -> list[Call]:
    """Every call that changes nothing: method, path, headers, JSON body."""
    picture = patches(1)[0].tobytes()
    wish = {"encoding": "raw", "height": 50, "width": 50, "data": base64.b64encode(picture).decode()}
    records = f"/v1/streams/{long}/records"
    looks: list[tuple[str, dict[str, str]]] = [
        *((path, {}) for path in ("/", "/docs", "/openapi.json", "/livez", "/readyz", "/metrics", "/v1/model")),
        *((f"/v1/streams{rest}", {}) for rest in ("", f"/{long}", f"/{live}/embedding")),
        (f"{records}?embeddings=true", {}),
        (f"{records}?limit=10000", {"Accept": "text/csv"}),
        (f"{records}?embeddings=true", {"Accept": "application/vnd.apache.arrow.stream"}),
        *((f"/v1/streams/{live}/loss?by={by}", {}) for by in ("time", "position")),
        (f"/v1/streams/{live}/trajectory", {}),
        (f"/v1/streams/{live}/fixations/1/patch", {}),
        *((f"/v1/diagnostics/{what}", {}) for what in ("representation", "gradient")),
        ("/v1/events", {}),
        *((f"/v1/checkpoints{rest}", {}) for rest in ("", f"/{checkpoint}", f"/{checkpoint}/download")),
    ]
    asked: list[Call] = [("GET", path, headers, None) for path, headers in looks]
    return [*asked, *(("POST", "/v1/embed", {}, body) for body in ({"patch": wish}, {"patches": [wish] * 4}))]


class Readers:
    """The readers, going or stopped."""

    def __init__(self, url: str, count: int, long: str, live: str) -> None:
        self._client = httpx.AsyncClient(base_url=url, timeout=120.0, limits=httpx.Limits(max_connections=None))
        self._count = count
        self._streams = (long, live)
        self._going = asyncio.Event()
        self._busy = 0
        self._idle = asyncio.Event()
        self.told: Counter[str] = Counter()

    async def run(self) -> None:
        """As the lines of the input say, until it ends."""
        checkpoint = (await self._client.get("/v1/checkpoints")).json()["checkpoints"][0]["id"]
        asked = calls(*self._streams, checkpoint)
        tasks = [asyncio.create_task(self._read(asked, number)) for number in range(self._count)]
        while line := await asyncio.to_thread(sys.stdin.readline):
            if line.strip() == "go":
                self._going.set()
            else:
                self._going.clear()
                while self._busy:
                    self._idle.clear()
                    await self._idle.wait()
            print(line.strip(), flush=True)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.aclose()

    async def _read(self, asked: list[Call], number: int) -> None:
        while True:
            for method, path, headers, body in asked[number % len(asked) :] + asked[: number % len(asked)]:
                await self._going.wait()
                self._busy += 1
                try:
                    status = await self._ask(method, path, headers, body)
                finally:
                    self._busy -= 1
                    self._idle.set()
                self.told[f"{method} {path.partition('?')[0]} {status}"] += 1

    async def _ask(self, method: str, path: str, headers: dict[str, str], body: Any) -> int:
        ends_s = time.monotonic() + (EVENTS_S if path == "/v1/events" else 3600.0)
        async with self._client.stream(method, path, headers=headers, json=body) as got:
            try:
                async with asyncio.timeout(ends_s - time.monotonic()):
                    async for _ in got.aiter_raw():
                        pass
            except TimeoutError:
                assert path == "/v1/events"
            return got.status_code


def main(url: str, count: str, long: str, live: str) -> None:
    """Read until the input ends."""
    os.nice(NICENESS)

    async def read() -> Counter[str]:
        readers = Readers(url, int(count), long, live)
        await readers.run()
        return readers.told

    print(json.dumps(asyncio.run(read())), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
