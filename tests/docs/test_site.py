"""The pages as a site: built without a warning, and neither built nor read with the internet."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.docs.blocks import texts
from tests.helpers import ROOT, environment

WITHOUT_NETWORK = """
import socket, sys
def refuse(*_, **__): raise OSError("the network was asked for")
socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse
from sphinx.cmd.build import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as ``make site`` does, in a process that can reach no other machine."""
    folder = tmp_path_factory.mktemp("site")
    recipe = (ROOT / "Makefile").read_text().split("\nsite:")[1].split("\n\n")[0]
    words = re.search(r"-m sphinx (.*) docs build/site", recipe)
    assert words, recipe
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_NETWORK, *words[1].split(), "docs", folder / "html", "-d", folder / "doctrees"],
        cwd=ROOT, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "html"


class _Asked(HTMLParser):
    """What a page makes a browser fetch, and where its links lead."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href", "srcset", "data", "action", "poster") and value:
                (self.links if tag == "a" else self.fetched).append(value)
            if name == "style" and value:
                self.fetched += re.findall(r"url\(([^)]*)\)", value)


def _elsewhere(address: str) -> bool:
    return bool(re.match(r"(?:[a-z][a-z0-9+.-]*:)?//", address.strip("'\" ")))


def test_it_is_built_without_a_warning(site: Path) -> None:
    made = {path.stem for path in site.glob("*.html")} - {"search", "genindex"}
    assert made == {Path(page).stem for page in texts() if page.startswith("docs/")}


def test_no_page_asks_another_host_for_anything(site: Path) -> None:
    for path in site.rglob("*.html"):
        asked = _Asked()
        asked.feed(path.read_text())
        assert asked.fetched, path
        assert [address for address in asked.fetched if _elsewhere(address)] == [], path.name
        for address in asked.fetched:
            file = path.parent / address.split("?")[0].split("#")[0]
            assert _elsewhere(address) or address.startswith("data:") or file.exists(), f"{path.name}: {address}"
    for path in site.rglob("*.css"):
        asked_by_css = re.findall(r"url\(([^)]*)\)|@import\s+[\"']([^\"']*)", path.read_text())
        assert [address for found in asked_by_css for address in found if _elsewhere(address)] == [], path.name


CREDIT = "https://github.com/pradyunsg/furo"
"""The theme names itself at the foot."""


def test_links_to_other_hosts_are_those_of_the_pages(site: Path) -> None:
    """Whatever leads elsewhere was written by us."""
    written = set(re.findall(r"https?://[^\s)>`'\"]+", "".join(texts().values())))
    for path in site.glob("*.html"):
        asked = _Asked()
        asked.feed(path.read_text())
        for link in asked.links:
            assert not _elsewhere(link) or link in {*written, CREDIT}, f"{path.name} leads to {link}"


def test_a_browser_that_reads_it_asks_nobody(site: Path, browser_path: str) -> None:
    """With scripts on, from the disk, search included: it finds a word of the pages."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=browser_path, args=["--no-sandbox", "--disable-background-networking", "--disable-gpu"]
        )
        try:
            page = browser.new_page()
            asked: list[str] = []
            page.on("request", lambda request: asked.append(request.url))
            page.goto((site / "search.html").as_uri() + "?q=spool")
            page.wait_for_selector("ul.search li a")
            for name in ("index", "mathematics"):
                page.goto((site / f"{name}.html").as_uri())
                assert page.locator("h1").first.inner_text()
        finally:
            browser.close()
    assert asked
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


def test_the_files_beside_the_pages_come_along(site: Path) -> None:
    names = {path.name for path in (site / "_downloads").rglob("*") if path.is_file()}
    assert {"recordings.ipynb", "closed_loop.py", "client.mjs"} <= names
