"""The numbers of docs/performance.md, from docs/performance/*.json: ``python -m service.performance_page``.

Between ``<!-- bench NAME -->`` and ``<!-- end -->`` stand the command, the date, the machine and the tables of
NAME.json, as ``rjepa bench --json`` kept them, after ``<!-- aims -->`` what they say of the aims and after
``<!-- participants -->`` what they say of a machine's size; the rest of the page is written by hand.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from service.bench_cli import module_of
from service.bench_record import machine_told
from service.performance_aims import aims
from service.performance_sizing import participants

PAGE = Path(__file__).resolve().parent.parent / "docs" / "performance.md"
NOT_MEASURED = "Not measured."
PART = re.compile(r"(<!-- bench ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)

MADE = re.compile(r"(<!-- (aims|participants) -->\n).*?(<!-- end -->)", re.DOTALL)
MAKERS = {"aims": aims, "participants": participants}


def page(text: str, folder: Path) -> str:
    """``text`` with every part as the numbers in ``folder`` have it. Raises OSError, ValueError or LookupError."""

    def fresh(found: re.Match[str]) -> str:
        path = folder / f"{found[2]}.json"
        return f"{found[1]}\n{_told(path) if path.exists() else NOT_MEASURED}\n\n{found[3]}"

    return MADE.sub(lambda found: f"{found[1]}\n{MAKERS[found[2]](folder)}\n\n{found[3]}", PART.sub(fresh, text))


def _told(path: Path) -> str:
    held = json.loads(path.read_text())
    tables = module_of(held["bench"]).told(held, markdown=True)
    return f"`{held['command']}`: {machine_told(held)}\n\n{tables}"


def main() -> int:
    """Write the page anew."""
    PAGE.write_text(page(PAGE.read_text(), PAGE.with_suffix("")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
