"""The formats of recordings, and which of them a path is."""

from __future__ import annotations

from pathlib import Path

from clients import andersson, bids, eyelink, neon_export, neon_native, pupil_player, recording, studyforrest, tobii
from clients.errors import SourceError
from clients.recorded import Format

FORMATS: dict[str, Format] = {
    module.FORMAT.name: module.FORMAT
    for module in (pupil_player, neon_native, neon_export, eyelink, bids, tobii, studyforrest, andersson, recording)
}
"""By name. The first that fits a path is it: a table of gaze samples comes last, it may be anything."""
_SHOWN = 12


def recognise(path: Path) -> Format:
    """The format of ``path``. Raises :class:`SourceError` with what was looked for and what is there."""
    if not path.exists():
        raise SourceError(f"recording {path} is not there")
    for found in FORMATS.values():
        if found.fits(path):
            return found
    looked_for = "; ".join(f"{form.signs} ({form.name})" for form in FORMATS.values())
    raise SourceError(
        f"{path} is no recording of a format that is recognised. There: {_there(path)}. Looked for: {looked_for}. "
        "Name the format with --format, or a table of gaze samples with --gaze and what was looked at with --video"
    )


def _there(path: Path) -> str:
    """What was found, and a recording inside it, if there is one."""
    if not path.is_dir():
        return f"a file {path.name} of {path.stat().st_size} bytes"
    names = sorted(file.name + "/" * file.is_dir() for file in path.iterdir())
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    inside = [folder for folder in sorted(path.glob("*/")) + sorted(path.glob("*/*/")) if folder.is_dir()]
    hint = next((folder for folder in inside if any(form.fits(folder) for form in FORMATS.values())), None)
    return (", ".join(names[:_SHOWN]) or "nothing") + more + (f"; but {hint} is one: name that" if hint else "")
