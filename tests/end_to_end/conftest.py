from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.helpers import Running, free_port, start_rjepa, wait_until


@dataclass
class Serving:
    """A running ``rjepa serve`` and its addresses."""

    process: Running
    ingest: str
    publish: str
    http: str
    data_dir: Path

    def get(self, path: str, **params: Any) -> Any:
        answer = httpx.get(f"{self.http}{path}", params=params, timeout=30)
        answer.raise_for_status()
        return answer.json()

    def post(self, path: str, body: Any = None) -> httpx.Response:
        return httpx.post(f"{self.http}{path}", json={} if body is None else body, timeout=60)

    def records(self, stream: str) -> list[dict[str, Any]]:
        """All records of the present timeline, page by page."""
        records: list[dict[str, Any]] = []
        after: Any = -1
        while after is not None:
            page = self.get(f"/v1/streams/{stream}/records", after=after, limit=1000)
            records += page["records"]
            after = page["next"]
        return records

    def wait_ready(self, limit_s: float = 120.0) -> None:
        def ready() -> bool:
            assert self.process.alive(), self.process.stderr()[-3000:]
            try:
                return httpx.get(f"{self.http}/readyz", timeout=10).status_code == 200
            except httpx.TransportError:
                return False

        wait_until(ready, limit_s, "readyz")


Serve = Callable[..., AbstractContextManager[Serving]]


@pytest.fixture
def serve(data_dir: Path, tmp_path: Path) -> Serve:
    """Start ``rjepa serve`` on this test's data directory: ``with serve() as serving``; extra words are passed on."""

    @contextmanager
    def start(*words: str) -> Iterator[Serving]:
        ingest, publish, http = (free_port() for _ in range(3))
        with start_rjepa(
            "serve",
            f"--data-dir={data_dir}",
            "--weights=random",
            f"--ingest=tcp://127.0.0.1:{ingest}",
            f"--publish=tcp://127.0.0.1:{publish}",
            f"--http=127.0.0.1:{http}",
            *words,
            logs=tmp_path / "logs",
        ) as process:
            serving = Serving(
                process,
                f"tcp://127.0.0.1:{ingest}",
                f"tcp://127.0.0.1:{publish}",
                f"http://127.0.0.1:{http}",
                data_dir,
            )
            serving.wait_ready()
            yield serving

    return start
