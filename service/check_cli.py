"""``rjepa check``: is a data directory what it should be. Only reads; its worker may be running."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from service.care_options import Parser
from service.check import AREAS, Report, check

_ABOUT = """\
Verifies a data directory: SQLite's integrity, journal, patches, features, records, timelines, checkpoints and
calibration. Prints a table, and each fault with its way out. Exit code 0: no fault; 1: some."""


def main(argv: list[str]) -> int:
    """Run ``rjepa check <argv>``: 0 where there is no fault, 1 where there is."""
    parser = Parser(prog="rjepa check", description=_ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, metavar="DIR", help="a worker's data directory")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    arguments = parser.parse_args(argv)
    with tqdm(desc="checking", unit="thing", disable=arguments.quiet or None) as bar:

        def tell(area: str, count: int) -> None:
            bar.set_description(f"checking {area}", refresh=False)
            bar.update(count)

        report = check(arguments.data_dir, tell)
    print(table(report))
    for line in report.said():
        print(line, file=sys.stderr)
    return 0 if report.good else 1


def table(report: Report) -> str:
    """A line for each area: how much was looked at, and how many faults were found."""
    lines = [f"{'area':<12} {'looked at':>10} {'faults':>7}"]
    for area in AREAS:
        faults = sum(fault.area == area for fault in report.faults)
        lines.append(f"{area:<12} {report.looked_at[area]:>10} {faults:>7}")
    return "\n".join(lines)
