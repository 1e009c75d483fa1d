"""The tables of docs/learning.md, from the rows kept in docs/learning/*.json: ``python -m service.learning_page``.

A table stands between ``<!-- table NAME -->`` and ``<!-- end -->``, with the options that made its rows on a line of
its own above it. What is between is written anew from NAME.json; the rest of the page is written by hand.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from service.experiment_cli import TOLD, told

PAGE = Path(__file__).resolve().parent.parent / "docs" / "learning.md"
_TABLE = re.compile(r"(<!-- table ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def page(text: str, folder: Path) -> str:
    """``text`` with every table as the rows in ``folder`` have it. Raises OSError, ValueError or LookupError."""

    def fresh(found: re.Match[str]) -> str:
        held = json.loads((folder / f"{found[2]}.json").read_text())
        return f"{found[1]}\n{told(TOLD[held['experiment']], held['rows'], markdown=True)}\n\n{found[3]}"

    return _TABLE.sub(fresh, text)


def main() -> int:
    """Write the page anew."""
    PAGE.write_text(page(PAGE.read_text(), PAGE.with_suffix("")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
