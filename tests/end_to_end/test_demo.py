"""`rjepa demo` as a new user runs it, short."""

from __future__ import annotations

from pathlib import Path

from tests.helpers import free_port, run_rjepa


def test_demo_ends_by_itself_with_a_summary(data_dir: Path) -> None:
    done = run_rjepa(
        "demo",
        "--fixations=40",
        "--exit",
        "--speed=max",
        f"--data-dir={data_dir}",
        f"--ingest=tcp://127.0.0.1:{free_port()}",
        f"--publish=tcp://127.0.0.1:{free_port()}",
        f"--http=127.0.0.1:{free_port()}",
        limit_s=150,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "RANDOM weights" in done.stdout
    assert "http://127.0.0.1:" in done.stdout
    assert "40 fixations durable" in done.stdout
    assert "best trivial predictor" in done.stdout
    assert "Is it learning? not learning yet: too few fixations (" in done.stdout


def test_exit_without_an_end_is_refused() -> None:
    done = run_rjepa("demo", "--exit")
    assert done.returncode == 2
    assert "--fixations" in done.stderr
