"""Fixations as the tracker or its software found them, placed where the eye was at their beginning."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

import numpy as np

from clients.fixations import DetectorSettings, Fixation
from clients.gaze import GazeTrack


def placed(
    track: GazeTrack, fixations: Iterable[Fixation], min_confidence: float | None = None
) -> tuple[Fixation, ...]:
    """``fixations`` in order of their onsets, each at the median of the samples of its beginning.

    As our own detectors do it: the gaze point has to fit the frame shown at the onset, also where the head or the
    target moved on. Where there is no sample, the place told (x, y) stays; without one (NaN) it is no fixation.
    """
    settings = DetectorSettings()
    least = settings.min_confidence if min_confidence is None else min_confidence
    usable = track.timed & np.isfinite(track.x) & np.isfinite(track.y) & (track.confidence >= least)
    order = np.flatnonzero(usable)[np.argsort(track.time_ns[usable], kind="stable")]
    time_ns, x, y = track.time_ns[order], track.x[order], track.y[order]
    found = []
    for fixation in sorted(fixations, key=lambda told: told.onset_ns):
        first = int(np.searchsorted(time_ns, fixation.onset_ns))
        last = int(np.searchsorted(time_ns, min(fixation.end_ns, fixation.onset_ns + settings.head_ns), side="right"))
        if last > first:
            fixation = dataclasses.replace(
                fixation, x=float(np.median(x[first:last])), y=float(np.median(y[first:last]))
            )
        if math.isfinite(fixation.x) and math.isfinite(fixation.y):
            found.append(fixation)
    return tuple(found)
