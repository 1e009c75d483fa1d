"""Every shared recording by one command each, into a running worker: ``python -m clients.recordings_table FOLDER``.

    rjepa serve --weights random --data-dir somewhere &
    python -m clients.recordings_table ../shared/data            prints what became of each
    python -m clients.recordings_table ../shared/data --write    and puts it into docs/recordings.md

The film of studyforrest is not part of its data, and the first 20 s of each run are enough to see it work.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clients.errors import ClientError, SourceError
from clients.main import main as stream

PAGE = Path(__file__).resolve().parent.parent / "docs" / "recordings.md"
COUNTS = ("found", "sent", "acked", "learned", "padded")
FULL_SCREEN = "--px-per-degree 22.2x22.5"
"""720 x 576 px on the screen of 32.5 x 25.7 degrees."""
_TABLE = re.compile(r"(<!-- table -->\n).*?(<!-- end -->)", re.DOTALL)


def commands(folder: Path) -> Iterator[str]:
    """What follows ``rjepa stream recording``, with paths from ``folder`` on. Raises SourceError if it is empty."""
    video = "--video andersson2017/videos/BergoDalbana.avi"
    yield "neon"
    yield f"pupil_core_export {video} {FULL_SCREEN}"
    yield f"pupil_core_export {video} {FULL_SCREEN} --detector tracker --stream pupil-tracker"
    for path in sorted(folder.glob("eyelink_asc/*.asc")):
        yield f"{_told(path, folder)} {video} --video-loop"
        yield f"{_told(path, folder)} {video} --video-loop --detector tracker --stream {path.stem[:40]}-tracker"
    for path in sorted(folder.glob("andersson2017/gaze_*/*.mat")):
        _, kind, *names, _, _ = path.stem.split("_")
        name = "_".join(names)
        shown = f"images/{name}1024x768.png" if kind == "img" else f"videos/{name}.avi"
        yield f"{_told(path, folder)} --video andersson2017/{shown}"
    runs = sorted(folder.glob("studyforrest/*_events.tsv"))
    for path in runs:
        yield f"{_told(path, folder)} {video} --video-loop --end 20"
    if not runs:
        raise SourceError(f"{folder} does not hold the shared recordings")


def _told(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def run(folder: Path, command: str, common: list[str]) -> dict[str, Any]:
    """Stream one to its end; its summary. Raises :class:`clients.errors.ClientError`."""
    words = [str(folder / word) if (folder / word).exists() else word for word in command.split()]
    with tempfile.TemporaryDirectory() as made:
        summary = Path(made) / "summary.json"
        code = stream(["recording", *words, *common, f"--spool={made}/spool", f"--summary={summary}", "--speed=max"])
        if code != 0:
            raise SourceError(f"rjepa stream recording {command} ended with {code}")
        found: dict[str, Any] = json.loads(summary.read_text())
    return found


def as_markdown(rows: list[tuple[str, dict[str, Any]]]) -> str:
    """A row for each command."""
    lines = [["rjepa stream recording ...", *COUNTS, "dropped"], ["---"] * (len(COUNTS) + 2)]
    for command, told in rows:
        dropped = ", ".join(f"{count} {reason}" for reason, count in told["dropped"].items()) or "none"
        lines.append([f"`{command}`", *(str(told[name]) for name in COUNTS), dropped])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(argv: list[str] | None = None) -> int:
    """Stream all, print the table; with ``--write`` also put it into the page."""
    parser = argparse.ArgumentParser(prog="python -m clients.recordings_table", description="see docs/recordings.md")
    parser.add_argument("folder", type=Path, help="the shared recordings")
    parser.add_argument("--ingest", default="tcp://127.0.0.1:5555", metavar="ADDRESS", help="the worker")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to FILE")
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE.name}")
    options = parser.parse_args(argv)
    common = [f"--ingest={options.ingest}", "--connect-within=600"]
    try:
        rows = [(command, run(options.folder, command, common)) for command in commands(options.folder)]
    except ClientError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    table = as_markdown(rows)
    sys.stdout.write(table + "\n")
    if options.json:
        options.json.write_text(json.dumps([{"command": command, **told} for command, told in rows]) + "\n")
    if options.write:
        PAGE.write_text(_TABLE.sub(lambda found: f"{found[1]}\n{table}\n\n{found[2]}", PAGE.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
