"""``rjepa backup``: copy a data directory, also while its worker runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from service.backup import backup
from service.care_options import Parser

_ABOUT = """\
Copies a data directory to a new folder, also while its worker runs: journal, records, checkpoints, calibration and
access/ (its secrets too). To restore, start rjepa serve on the copy, or on a copy of it, with the same options."""


def main(argv: list[str]) -> int:
    """Run ``rjepa backup <argv>``: 0 where the copy is good, 1 where ``rjepa check`` finds a fault in it."""
    parser = Parser(prog="rjepa backup", description=_ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, metavar="DIR", help="a worker's data directory")
    parser.add_argument("--to", type=Path, required=True, metavar="DIR2", help="a folder that does not exist yet")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    arguments = parser.parse_args(argv)
    with copying(quiet=arguments.quiet) as tell:
        wrong = backup(arguments.data_dir, arguments.to, tell)
    for line in wrong:
        print(line, file=sys.stderr)
    print(f"{arguments.data_dir} is copied to {arguments.to}" + (", with the faults above" if wrong else ""))
    return 1 if wrong else 0


@contextmanager
def copying(*, quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar for what :data:`service.backup.Tell` hears."""
    with tqdm(desc="copying", unit="B", unit_scale=True, disable=quiet or None) as bar:

        def tell(what: str, done: int, whole: int) -> None:
            if what == "database":
                bar.total = whole
                bar.update(done - bar.n)
            bar.set_description(f"copying {what}" if what != "check" else "checking the copy", refresh=False)

        yield tell
