"""The tables of docs/performance.md, from what ``rjepa bench`` kept: ``python -m service.performance_page``.

A table stands between ``<!-- table NAME -->`` and ``<!-- end -->`` and is written anew from
docs/performance/NAME.json: the command, when and on what machine, and what was found. The rest is written by hand.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from service.bench_cli import module_of
from service.bench_record import machine_told

PAGE = Path(__file__).resolve().parent.parent / "docs" / "performance.md"
NOT_MEASURED = "Not measured."
TABLE = re.compile(r"(<!-- table ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def page(text: str, folder: Path) -> str:
    """``text`` with every table as the files in ``folder`` have it. Raises OSError, ValueError or LookupError."""

    def fresh(found: re.Match[str]) -> str:
        path = folder / f"{found[2]}.json"
        return f"{found[1]}{_told(path) if path.exists() else NOT_MEASURED}\n{found[3]}"

    return TABLE.sub(fresh, text)


def _told(path: Path) -> str:
    held = json.loads(path.read_text())
    table = module_of(held["bench"]).told(held, markdown=True)
    return f"`{held['command']}`: {machine_told(held)}.\n\n{table}\n"


def main() -> int:
    """Write the page anew."""
    PAGE.write_text(page(PAGE.read_text(), PAGE.with_suffix("")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
