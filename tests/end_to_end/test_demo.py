"""`rjepa demo` as a new user runs it, short, and its picture in a real browser."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Serve
from tests.end_to_end.test_main_job import run_client
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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the browser is driven on POSIX")
def test_the_page_shows_a_curve_that_moves(serve: Serve, browser_path: str, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    with serve() as serving, sync_playwright() as playwright:
        run_client(serving.ingest, "s1", 30)
        browser = playwright.chromium.launch(
            executable_path=browser_path, args=["--no-sandbox", "--disable-background-networking", "--disable-gpu"]
        )
        try:
            page = browser.new_page()
            asked: list[str] = []
            page.on("request", lambda request: asked.append(request.url))
            page.goto(serving.http)
            before = page.locator("svg path, svg polyline").evaluate_all("all => all.map(e => e.outerHTML).join()")
            assert before
            run_client(serving.ingest, "s1", 30)
            page.reload()
            after = page.locator("svg path, svg polyline").evaluate_all("all => all.map(e => e.outerHTML).join()")
            assert after != before
            assert "s1" in page.inner_text("body")
            assert all(url.startswith(serving.http) for url in asked), "no request leaves the machine"
        finally:
            browser.close()
