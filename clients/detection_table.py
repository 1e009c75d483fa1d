"""Our online detectors and pymovements' on whole recordings, against an expert: ``python -m clients.detection_table``.

    python -m clients.detection_table ../shared/data/andersson2017            prints the table
    python -m clients.detection_table ../shared/data/andersson2017 --write    and puts it into docs/detection.md

Every detector is tried with the settings of a small grid of its own. Which of them judges a viewer is chosen on the
other viewers alone (by each of CRITERIA in turn, over them together), so that none is judged on what its settings were
chosen on. A viewer that was recorded twice is left out with both recordings. Beside that, each with the
one that is best on all of them: what it could do at most. pymovements comes with
rjepa[dev]; it takes velocities and positions in degrees as our reader gives them.
"""

from __future__ import annotations

import argparse
import itertools
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from clients.agreement import Agreement, Events, expert_events, together
from clients.andersson import read_andersson, read_labels
from clients.detectors import MS, DispersionSettings, VelocitySettings
from clients.errors import SourceError
from clients.fixations import Detector, DetectorSettings, Sample
from clients.units import FrameSize

PAGE = Path(__file__).resolve().parent.parent / "docs" / "detection.md"
RATE_HZ = 500.0
COLUMNS = (
    "detector", "F1", "F1, overlap above half", "kappa", "onset error, ms", "told after its end, ms", "settings chosen",
)  # fmt: skip
SET_ON_ALL = ", set on all"
_TABLE = re.compile(r"(<!-- table -->\n).*?(<!-- end -->)", re.DOTALL)


@dataclass(frozen=True)
class Viewing:
    """One labelled recording: its samples, those with a time as arrays, and the expert's events."""

    viewer: str
    frame: FrameSize
    samples: list[Sample]
    times_ns: NDArray[np.int64]
    position_deg: NDArray[np.float64]
    """(N, 2), NaN where lost."""
    expert: Events


@dataclass(frozen=True)
class Judged:
    """One recording by one detector: ``delays_ms`` from each event's end to when it was told (none: not online)."""

    agreement: Agreement
    delays_ms: tuple[float, ...] = ()


@dataclass(frozen=True)
class Candidate:
    """A detector with settings: ``run`` gives the events of a viewing, and the delays."""

    detector: str
    words: str
    run: Callable[[Viewing], tuple[Events, tuple[float, ...]]]

    def judge(self, viewing: Viewing) -> Judged:
        """Its agreement with the expert."""
        events, delays_ms = self.run(viewing)
        agreement = Agreement()
        agreement.add(viewing.expert, events, viewing.times_ns)
        return Judged(agreement, delays_ms)


def read_viewings(folder: Path) -> list[Viewing]:
    """Every labelled recording below ``folder``. Raises :class:`SourceError` where there is none."""
    found = []
    for path in sorted(folder.rglob("*_labelled_RA.mat")):
        track = read_andersson(path)
        if track.frame is None:
            raise SourceError(f"{path} tells no degrees")
        timed = track.timed
        times_ns = track.time_ns[timed]
        position = np.stack([track.x[timed] * track.frame.width_deg, track.y[timed] * track.frame.height_deg], axis=1)
        expert = expert_events(times_ns, read_labels(path)[timed])
        viewer = path.name.split("_")[0]
        found.append(Viewing(viewer, track.frame, list(track.samples()), times_ns, position, expert))
    if not found:
        raise SourceError(f"{folder}: no *_labelled_RA.mat below it")
    return found


def candidates() -> Iterator[Candidate]:
    """Every detector with every one of its settings."""
    base = DetectorSettings()
    yield _ours("ours as it is (auto), online", "the program's own", base)
    for threshold, factor in itertools.product((30.0, 35.0, 40.0, 45.0, 50.0), (2.0, 3.0, 4.0)):
        velocity = VelocitySettings(threshold_deg_per_s=threshold, noise_factor=factor)
        settings = replace(base, method="ivt", velocity=velocity)
        yield _ours("our I-VT, online", f"{threshold:g} deg/s, {factor:g} x noise", settings)
    for spread, window in itertools.product((0.8, 1.0, 1.25), (60, 80, 100)):
        dispersion = DispersionSettings(window_ns=window * MS, dispersion_deg=spread)
        settings = replace(base, method="idt", dispersion=dispersion)
        yield _ours("our I-DT, online", f"{spread:g} deg, {window} ms", settings)
    ways: tuple[tuple[str, dict[str, int]], ...] = (
        ("smooth", {}),
        ("savitzky_golay", {"window_length": 11, "polyorder": 2}),
        ("savitzky_golay", {"window_length": 21, "polyorder": 2}),
    )
    limits = (20.0, 30.0, 35.0, 40.0, 45.0, 50.0, 55.0, 60.0, 70.0, 80.0, 100.0)
    for (way, options), limit, shortest in itertools.product(ways, limits, (40, 60, 80)):
        words = f"{limit:g} deg/s by {way}{options.get('window_length', '')}, {shortest} ms"
        yield Candidate("pymovements I-VT", words, _pymovements_ivt(way, options, limit, shortest))
    for spread, shortest in itertools.product((1.0, 2.0, 3.0, 4.0, 5.0), (60, 100, 150, 200)):
        yield Candidate("pymovements I-DT", f"{spread:g} deg, {shortest} ms", _pymovements_idt(spread, shortest))


def _ours(detector: str, words: str, settings: DetectorSettings) -> Candidate:
    def run(viewing: Viewing) -> tuple[Events, tuple[float, ...]]:
        online = Detector(viewing.frame, settings)
        events, delays_ms = [], []
        for at, sample in enumerate(viewing.samples):
            for fixation in online.feed(sample):
                events.append((fixation.onset_ns, fixation.end_ns))
                if sample.time_ns is not None and at > settings.warm_up:
                    delays_ms.append((sample.time_ns - fixation.end_ns) / MS)
        events += [(fixation.onset_ns, fixation.end_ns) for fixation in online.finish()]
        return events, tuple(delays_ms)

    return Candidate(detector, words, run)


def _pymovements_ivt(way: str, options: dict[str, int], limit: float, shortest_ms: int) -> Any:
    def run(viewing: Viewing) -> tuple[Events, tuple[float, ...]]:
        from pymovements.events.detection import ivt
        from pymovements.transforms.numpy import pos2vel

        velocity = pos2vel(viewing.position_deg, sampling_rate=RATE_HZ, method=way, **options)
        return _whole(viewing, ivt(velocity, minimum_duration=_samples(shortest_ms), velocity_threshold=limit)), ()

    return run


def _pymovements_idt(spread: float, shortest_ms: int) -> Any:
    def run(viewing: Viewing) -> tuple[Events, tuple[float, ...]]:
        from pymovements.events.detection import idt

        found = idt(viewing.position_deg, minimum_duration=_samples(shortest_ms), dispersion_threshold=spread)
        return _whole(viewing, found), ()

    return run


def _samples(duration_ms: int) -> int:
    return round(duration_ms * RATE_HZ / 1000)


def _whole(viewing: Viewing, found: Any) -> Events:
    """pymovements counts in samples here: it wants steps that are all the same."""
    onsets, offsets = (found.frame[name].to_list() for name in ("onset", "offset"))
    return [(int(viewing.times_ns[a]), int(viewing.times_ns[b])) for a, b in zip(onsets, offsets, strict=True)]


Criterion = Callable[[Agreement], tuple[float, ...]]
CRITERIA: dict[str, Criterion] = {
    "Chosen by F1 and kappa, their sum.": lambda total: (total.f1 + total.kappa,),
    "Chosen by F1 alone; kappa decides between equals.": lambda total: (total.f1, total.kappa),
}
"""What settings are chosen by, of all recordings they are chosen on together; for every detector alike."""


def judged_by_others(
    viewings: Sequence[Viewing], tried: dict[str, list[Judged]], criterion: Criterion
) -> tuple[list[Judged], Counter[str]]:
    """Each viewing by the settings that were best on the other viewers; and how often each settings was chosen.

    ``tried``: by settings, one for each viewing.
    """
    held_out: list[Judged] = []
    chosen: Counter[str] = Counter()
    for at, viewing in enumerate(viewings):
        others = [number for number, other in enumerate(viewings) if other.viewer != viewing.viewer]
        best = _best({words: [judged[number] for number in others] for words, judged in tried.items()}, criterion)
        held_out.append(tried[best][at])
        chosen[best] += 1
    return held_out, chosen


def _best(tried: dict[str, list[Judged]], criterion: Criterion) -> str:
    return max(tried, key=lambda words: criterion(together(part.agreement for part in tried[words])))


def judge_all(viewings: Sequence[Viewing], show: bool = True) -> dict[str, dict[str, list[Judged]]]:
    """By detector and settings, each viewing."""
    tried: dict[str, dict[str, list[Judged]]] = {}
    for candidate in tqdm(list(candidates()), unit="settings", disable=not (show and sys.stderr.isatty())):
        tried.setdefault(candidate.detector, {})[candidate.words] = [candidate.judge(v) for v in viewings]
    return tried


def rows(
    viewings: Sequence[Viewing], tried: dict[str, dict[str, list[Judged]]], criterion: Criterion
) -> Iterator[tuple[str, ...]]:
    """A table's rows: each detector on viewers left out, then each with what is best on all of them."""
    for detector, by_words in tried.items():
        if len(by_words) > 1:
            yield _row(detector, *judged_by_others(viewings, by_words, criterion))
    for detector, by_words in tried.items():
        best = _best(by_words, criterion)
        yield _row(detector + SET_ON_ALL, by_words[best], Counter({best: len(viewings)}))


def _row(detector: str, judged: Sequence[Judged], chosen: Counter[str]) -> tuple[str, ...]:
    total = together(part.agreement for part in judged)
    delays_ms = [delay for part in judged for delay in part.delays_ms]
    delay = f"{np.mean(delays_ms):.0f}, at most {max(delays_ms):.0f}" if delays_ms else "at the recording's end"
    often = "; ".join(f"{words} ({count})" for words, count in chosen.most_common())
    numbers = (f"{total.f1:.3f}", f"{total.f1_half:.3f}", f"{total.kappa:.3f}", f"{total.onset_error_ms:.1f}")
    return detector, *numbers, delay, often


def as_markdown(table: Sequence[Sequence[str]]) -> str:
    """The rows under their columns."""
    lines = [COLUMNS, ["---"] * len(COLUMNS), *table]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(argv: list[str] | None = None) -> int:
    """Print the table; with ``--write`` also put it into the page."""
    parser = argparse.ArgumentParser(
        prog="python -m clients.detection_table", description=(__doc__ or "").split(":")[0]
    )
    parser.add_argument("folder", type=Path, help="the recordings of Andersson et al. 2017, with their labels")
    parser.add_argument("--write", action="store_true", help=f"put it into {PAGE.name}")
    options = parser.parse_args(argv)
    viewings = read_viewings(options.folder)
    events = sum(len(viewing.expert) for viewing in viewings)
    told = (
        f"{len(viewings)} recordings of {len({v.viewer for v in viewings})} viewers, {events} events of the expert.\n\n"
    )
    tried = judge_all(viewings)
    tables = [f"{words}\n\n{as_markdown(list(rows(viewings, tried, how)))}" for words, how in CRITERIA.items()]
    table = told + "\n\n".join(tables)
    sys.stdout.write(table + "\n")
    if options.write:
        PAGE.write_text(_TABLE.sub(lambda found: f"{found[1]}\n{table}\n\n{found[2]}", PAGE.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
