"""``rjepa doctor``: what can be reached from this computer, and what to do where not."""

from __future__ import annotations

from clients.settings import DoctorSettings, load

ABOUT = """\
Looks from an acquisition computer for everything a stream needs: the worker (with this computer's keys), Pupil
Capture (clock, gaze, frames), streams of the Lab Streaming Layer, cameras. Each line that is not ok says what to do.
Nothing is changed anywhere: no stream is claimed, nothing is set in Capture.

Exit code: 0 the worker takes fixations from here, 2 it refuses this computer's key or stream, 4 it can't be reached.

  rjepa doctor --pair anna.pair.json --picture seen.png"""


def main(argv: list[str]) -> int:
    """Run ``rjepa doctor <argv>``; returns the exit code. Raises :class:`clients.errors.ClientError`."""
    settings = load(DoctorSettings, argv, "rjepa doctor", ABOUT)
    from clients.doctor import examine

    report = examine(settings)
    for finding in report.findings:
        print(finding.lines())
    return report.exit_code
