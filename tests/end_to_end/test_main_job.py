"""The main job, from outside: an outsider's client, the HTTP interface, a crash, and the numbers after it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tests.end_to_end.conftest import Serve, Serving
from tests.helpers import wait_until

CLIENT = Path(__file__).with_name("contract_client.py")


def run_client(address: str, stream: str, count: int) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(CLIENT), address, stream, str(count)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def worker_pid(serving: Serving) -> int:
    from service.control import ControlClient

    return int(ControlClient(serving.data_dir).ask({"op": "status"}, timeout_s=10.0)["pid"])


def test_client_is_small() -> None:
    text = CLIENT.read_text()
    assert len(text.splitlines()) < 80
    imported = {line.split()[1] for line in text.splitlines() if line.startswith(("import ", "from "))}
    assert imported == {"json", "sys", "time", "zmq"}


def test_two_hundred_then_a_crash_then_sixty_more(serve: Serve) -> None:
    with serve("--checkpoint-every=5") as serving:
        told = run_client(serving.ingest, "s1", 200)
        assert told["next_seq_at_hello"] == 0
        assert told["learned"] == 200
        assert told["acked"] == 199
        embedding = serving.get("/v1/streams/s1/embedding")
        assert embedding["seq"] == 199
        assert len(embedding["embedding"]) == serving.get("/v1/model")["embedding_size"]
        assert np.isfinite(embedding["embedding"]).all()
        loss = serving.get("/v1/streams/s1/loss")
        assert loss["count"] == 199, "the first of a sequence has no prediction"
        before = serving.records("s1")
        assert [record["seq"] for record in before] == list(range(200))
        serving.process.kill()
    with serve("--checkpoint-every=5") as serving:
        told = run_client(serving.ingest, "s1", 60)
        assert told["next_seq_at_hello"] == 200
        assert told["learned"] == 60
        after = serving.records("s1")
        assert [record["seq"] for record in after] == list(range(260))
        assert after[:200] == before, "what was recorded before the crash is what is recorded now"
        errors = [record["prediction_error"] for record in after[1:] if record["skipped"] is None]
        assert all(error is not None and np.isfinite(error) for error in errors)


def test_serve_ends_as_a_whole(serve: Serve, data_dir: Path) -> None:
    """When the worker dies the interface ends with it, and ports and lock are free again."""
    import os
    import signal

    with serve() as serving:
        os.kill(worker_pid(serving), signal.SIGKILL)
        assert serving.process.wait(30) != 0
    with serve() as serving:
        assert serving.get("/v1/streams")["streams"] == []
        run_client(serving.ingest, "s1", 5)
        assert serving.process.terminate() == 0
    assert any((data_dir / "checkpoints").iterdir()), "a stop leaves a checkpoint"


def test_the_parent_is_killed_alone(serve: Serve) -> None:
    """SIGKILL of `rjepa serve` itself: its children notice and end."""
    import os
    import signal

    with serve() as serving:
        worker = worker_pid(serving)
        os.kill(serving.process.pid, signal.SIGKILL)
        serving.process.wait(10)

        def gone() -> bool:
            try:
                os.kill(worker, 0)
            except ProcessLookupError:
                return True
            return Path(f"/proc/{worker}/stat").read_text().split(") ")[1][0] == "Z"

        wait_until(gone, 20, "the worker's end")
