"""The dashboard in a real browser, beside a real worker and a real HTTP interface."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from service.access_cli import make_token
from tests.end_to_end.halves import Halves, halves
from tests.helpers import wait_until

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the browser is driven on POSIX")
GRAVE = {"serious", "critical"}
LIMIT_MS = 30_000
SEEN_FIRST = 30


class Seen:
    """A page with everything it asked for and complained of."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.asked: list[str] = []
        self.faults: list[str] = []
        page.set_default_timeout(LIMIT_MS)
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("console", lambda told: self.faults.append(told.text) if "Content Security" in told.text else None)

    def says(self, selector: str, pattern: str) -> str:
        """Wait until the element's text has ``pattern``; the text."""
        script = (
            "([selector, pattern]) => new RegExp(pattern).test(document.querySelector(selector)?.textContent ?? '')"
        )
        self.page.wait_for_function(script, arg=[selector, pattern])
        return str(self.page.text_content(selector))

    def picture(self, selector: str) -> str:
        return str(self.page.eval_on_selector(selector, "canvas => canvas.toDataURL()"))

    def errors(self) -> int:
        """How many errors the curve is of."""
        found = re.match(r"([\d,]+) errors", str(self.page.text_content("#curve-count")))
        return int(found[1].replace(",", "")) if found else 0


@pytest.fixture(scope="module")
def lab(made_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Halves]:
    folder = tmp_path_factory.mktemp("dashboard")
    shutil.copytree(made_directory, folder / "data")
    with halves(folder / "data", folder / "logs") as both:
        both.look("s1", SEEN_FIRST)
        yield both


@pytest.fixture(scope="module")
def browser(browser_path: str) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    quiet = ["--no-sandbox", "--disable-background-networking", "--disable-gpu"]
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=browser_path, args=quiet)
        yield found
        found.close()


@contextmanager
def opened(browser: Any, address: str, *, before: str = "", **context: Any) -> Iterator[Seen]:
    """The page at ``address``, which asks nobody else for anything and breaks no rule of its policy; ``before`` is a
    script that runs before its own."""
    made = browser.new_context(viewport={"width": 1500, "height": 1100}, **context)
    try:
        made.add_init_script(before)
        seen = Seen(made.new_page())
        seen.page.goto(address)
        yield seen
        base = address.partition("//")[2].partition("/")[0]
        assert all(url.startswith(f"http://{base}/") for url in seen.asked), "no request leaves the machine"
        assert seen.faults == []
    finally:
        made.close()


def test_the_curve_moves_while_fixations_come_and_through_restarts(lab: Halves, browser: Any) -> None:
    with opened(browser, lab.http) as seen:
        seen.says("#state", "live.*learning is on")
        before, errors = seen.picture("#curve"), seen.errors()
        assert errors >= SEEN_FIRST - 1
        lab.look("s1", 5)
        seen.says("#curve-count", f"^{errors + 5} errors")
        wait_until(lambda: seen.picture("#curve") != before, 5.0, "another picture")
        lab.worker.kill()
        seen.says("#state", "worker away since .*nothing is learned")
        lab.start_worker()
        lab.look("s1", 5)
        seen.says("#curve-count", f"^{errors + 10} errors")
        seen.says("#state", "live.*learning is on")
        lab.api.kill()
        seen.says("#state", "no connection since")
        lab.api = lab.start_api()
        lab.look("s1", 5)
        seen.says("#curve-count", f"^{errors + 15} errors")
        seen.says("#state", "live.*learning is on")
        loss = seen.page.evaluate("fetch('/v1/streams/s1/loss').then(answer => answer.json())")
        assert loss["count"] == errors + 15, "what is shown is what was recorded"


DEAF = """
    const Real = EventSource;
    class Deaf extends EventTarget {
        readyState = 1;
        constructor() { super(); setTimeout(() => this.dispatchEvent(new Event("open")), 0); }
        close() { window.gaveUp = true; }
    }
    let first = true;
    window.EventSource = function (path) {
        const source = first ? new Deaf() : new Real(path);
        first = false;
        return source;
    };
    window.EventSource.CLOSED = Real.CLOSED;
"""
"""The first event stream opens and brings nothing, as after a network was away."""


def test_events_that_look_open_and_bring_nothing_are_begun_anew(lab: Halves, browser: Any) -> None:
    with opened(browser, lab.http, before=DEAF) as seen:
        seen.says("#curve-count", "^[0-9,]+ errors.*live")
        seen.says("#state", "live")
        errors = seen.errors()
        lab.look("s1", 3)
        seen.says("#curve-count", f"^{errors + 3} errors")
        assert seen.page.evaluate("window.gaveUp")
        lab.look("s1", 2)
        seen.says("#curve-count", f"^{errors + 5} errors")


def test_the_tail_has_the_server_s_running_means(lab: Halves, browser: Any) -> None:
    """What the page adds up itself, fixation by fixation, is what the server would say."""
    module = "import(document.querySelector('script[type=module]').src.replace('main.js', 'curve.js'))"
    make = f"""async () => {{
        const {{ Curve }} = await {module};
        const curve = new Curve("s1", () => {{}});
        await curve.load();
        const path = "/v1/streams/s1/records?after=" + (curve.points.at(-11).seq - 1) + "&limit=11";
        const late = (await (await fetch(path)).json()).records;
        const whole = curve.points;
        curve.points = whole.slice(0, -11);
        curve.newest = curve.points.at(-1).seq;
        curve.recent = curve.points.slice(-curve.window);
        for (const record of late) curve.add(record);
        const thin = new Curve("s1", () => {{}});
        thin.parameters = () => ({{ points: 4 }});
        await thin.load();
        const ends = [curve, thin].map((one) => [one.lastSeq, one.recent.at(-1).error]);
        return [whole.slice(-11), curve.tail, ends, thin.points.length];
    }}"""
    with opened(browser, lab.http) as seen:
        told, made, (end, end_of_thin), few = seen.page.evaluate(make)
        assert few <= 4
        assert end_of_thin == end, "of a thinned curve too the running mean goes on from the newest"
        assert len(told) == len(made) == 11
        for ours, theirs in zip(made, told, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-9)


def test_zoom_asks_for_the_part_and_goes_back_to_live(lab: Halves, browser: Any) -> None:
    with opened(browser, lab.http) as seen:
        seen.says("#curve-count", "live")
        seen.page.focus("#curve")
        seen.page.keyboard.press("+")
        seen.says("#curve-count", "fixations [0-9,]+ to [0-9,]+$")
        assert any("after=" in url and "until=" in url for url in seen.asked)
        seen.page.keyboard.press("ArrowLeft")
        seen.page.click("#view-live")
        seen.says("#curve-count", "live$")
        box = seen.page.locator("#curve").bounding_box()
        seen.page.mouse.move(box["x"] + 300, box["y"] + 50)
        seen.page.mouse.down()
        seen.page.mouse.move(box["x"] + 700, box["y"] + 60, steps=3)
        seen.says("#curve-readout", r"^Fixation \d+, .*: error 0?\.?\d")
        seen.page.mouse.up()
        seen.says("#curve-count", "fixations [0-9,]+ to [0-9,]+$")


def test_going_back_asks_first(lab: Halves, browser: Any) -> None:
    with opened(browser, lab.http) as seen:
        page = seen.page
        page.fill("#take-label", "before lunch")
        page.check("#take-pinned")
        page.click("text=Take a checkpoint")
        seen.says("#done", "Taken")
        seen.says("#checkpoints", "pinned before lunch")
        page.click("[aria-label='Unpin before lunch']")
        seen.says("#done", "Unpinned")
        page.click("[aria-label='Pin before lunch']")
        seen.says("#done", "Pinned: it stays")
        assert page.evaluate("document.activeElement.ariaLabel") == "Unpin before lunch", "the focus stays on it"
        seen.says("#checkpoints", "pinned before lunch")
        lab.look("s1", 3)
        page.click("[aria-label='Go back to before lunch']")
        seen.says("#dialog", "Nothing stored is erased")
        assert page.evaluate("document.activeElement.textContent") == "Cancel"
        page.keyboard.press("Escape")
        assert page.evaluate("fetch('/v1/streams/s1').then(answer => answer.json())")["timeline"] == 0
        page.click("[aria-label='Go back to before lunch']")
        page.uncheck("#take-first")
        page.click("#dialog-yes")
        seen.says("#done", "Gone back. Timeline 1 begins")
        assert page.evaluate("fetch('/v1/streams/s1').then(answer => answer.json())")["timeline"] == 1
        count = page.evaluate("fetch('/v1/streams/s1/loss').then(answer => answer.json())")["count"]
        seen.says("#curve-count", f"^{count:,} errors")
        lab.look("s1", 2)
        seen.says("#curve-count", f"^{count + 1:,} errors")
        page.click("#pause")
        seen.says("#state", "learning is paused")
        page.click("#pause")
        seen.says("#state", "learning is on")


def test_what_somebody_named_is_text(lab: Halves, browser: Any) -> None:
    label = "<img src=x onerror=document.title=1><script>1</script>"
    with opened(browser, lab.http) as seen:
        seen.page.fill("#take-label", label)
        seen.page.click("text=Take a checkpoint")
        seen.says("#checkpoints", "<img src=x onerror")
        assert seen.page.locator("#checkpoints img, #checkpoints script").count() == 0
        seen.page.click("#checkpoints button[data-key$='-delete'] >> nth=0")
        seen.says("#dialog-title", "<img src=x")
        assert seen.page.locator("#dialog img, #dialog script").count() == 0


def test_with_tokens_one_logs_in_and_may_what_the_token_may(lab: Halves, browser: Any, tmp_path: Path) -> None:
    tokens = {role: make_token(tmp_path / "access", role, role) for role in ("read", "admin")}
    lab.start_api(f"--access-dir={tmp_path / 'access'}", name="locked")
    for role, token in tokens.items():
        with opened(browser, lab.address("locked")) as seen:
            page = seen.page
            assert page.url.endswith("/login")
            page.fill("input[name=token]", token)
            page.click("button")
            seen.says("#state", "live")
            seen.says("#checkpoints", "before lunch|None yet|demo|s1")
            assert page.is_disabled("#pause") == (role == "read")
            assert page.is_disabled("text=Take a checkpoint") == (role == "read")
            assert page.is_visible("#reason") == (role == "read")
            page.click("text=Log out")
            page.wait_for_url("**/login")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_fault_of_accessibility(lab: Halves, browser: Any, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    with opened(browser, lab.http, color_scheme=scheme, bypass_csp=True) as seen:
        seen.says("#state", "live")
        seen.says("#trajectory-note", "variance")
        seen.page.click("text=What the alarms mean")
        found = Axe().run(seen.page).response["violations"]
        grave = [(one["id"], [node["html"] for node in one["nodes"]]) for one in found if one["impact"] in GRAVE]
        assert grave == []


def test_without_script_it_shows_the_curve(lab: Halves, browser: Any) -> None:
    with opened(browser, lab.http, java_script_enabled=False) as seen:
        assert seen.page.locator("svg polyline.smoothed").first.is_visible()
        assert "s1" in seen.page.inner_text("#streams")
        assert not seen.page.is_visible("#checkpoints")
