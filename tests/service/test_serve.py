"""``rjepa serve``: what it refuses before anything is started, and whose readiness it tells."""

from __future__ import annotations

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from service.serve import Readiness
from service.settings import Settings
from tests.helpers import free_port, run_rjepa, wait_until
from tests.service.api_support import Lab, interface, working


class AlwaysReady(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


def test_another_server_at_the_address_is_not_taken_for_ours(tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), AlwaysReady) as other:
        serving = threading.Thread(target=other.serve_forever)
        serving.start()
        try:
            address = f"127.0.0.1:{other.server_address[1]}"
            done = run_rjepa(
                "serve", "--weights=random", f"--data-dir={tmp_path / 'data'}", f"--http={address}",
                f"--ingest=tcp://127.0.0.1:{free_port()}", f"--publish=tcp://127.0.0.1:{free_port()}",
            )  # fmt: skip
        finally:
            other.shutdown()
            serving.join()
    assert done.returncode == 4
    assert "ready" not in done.stdout
    assert f"{address} is taken" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "data").exists(), "no worker was started"


def test_where_one_half_cant_begin_the_other_ends_too(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = free_port()
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        done = run_rjepa(
            "serve", "--weights=random", f"--data-dir={tmp_path}", f"--http=127.0.0.1:{port}",
            f"--ingest={address}", f"--publish=tcp://127.0.0.1:{free_port()}",
        )  # fmt: skip
    assert done.returncode == 4, "the worker's own exit code"
    assert "ready" not in done.stdout
    assert f"rjepa worker: {address} is taken" in done.stderr
    assert "rjepa serve: rjepa worker ended by itself with exit code 4" in done.stderr
    with socket.create_server(("127.0.0.1", port)):
        pass  # the interface is gone


def test_ready_is_said_of_the_own_worker_only(tmp_path: Path) -> None:
    Lab(tmp_path).journal.close()
    with working(tmp_path, pid=1) as desk, interface(tmp_path) as client:
        ready = Readiness(Settings(data_dir=tmp_path, http=f"127.0.0.1:{client.base_url.port}"), 2)
        wait_until(lambda: len(desk.asked) >= 4, 20, "the question whose worker answers")
        assert not ready.just_now(), "another worker holds the directory"
        desk.status["pid"] = 2
        wait_until(ready.just_now, 20, "ready")
        assert not ready.just_now(), "it is said once"
