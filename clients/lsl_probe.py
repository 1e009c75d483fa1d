"""Which streams of the Lab Streaming Layer can be seen from here (extra ``lsl``)."""

from __future__ import annotations

import importlib
import time
from typing import Any

from clients.doctor_finding import Finding, State

WHAT = "lsl"
GAZE = "gaze"
LOOK_S = 2.0
"""How long streams are looked for: those that can be seen answer within half a second."""
SHORTEST_S = 0.2


def ask_lsl(limit_s: float) -> list[Finding]:
    """One finding for each stream, with the offset of its clock; or why there is none."""
    try:
        pylsl: Any = importlib.import_module("pylsl")
    except ModuleNotFoundError:
        return [Finding(WHAT, State.ABSENT, "pylsl is not installed", "if gaze comes by LSL: pip install 'rjepa[lsl]'")]
    except (RuntimeError, OSError) as error:
        return [Finding(WHAT, State.TROUBLE, f"pylsl is here without its library: {error}", "pip install -U pylsl")]
    end_s = time.monotonic() + limit_s
    streams = pylsl.resolve_streams(wait_time=min(limit_s / 2, LOOK_S))
    if not streams:
        remedy = (
            "start the tracker's relay (in Pupil Capture the plugin LSL Relay), in this network, with multicast allowed"
        )
        return [Finding(WHAT, State.ABSENT, "no stream can be seen", remedy)]
    # One that does not answer must leave time for those after it.
    waits = range(len(streams), 0, -1)
    return [
        _told(pylsl, stream, max(SHORTEST_S, (end_s - time.monotonic()) / left))
        for stream, left in zip(streams, waits, strict=True)
    ]


def _told(pylsl: Any, stream: Any, limit_s: float) -> Finding:
    rate_hz = stream.nominal_srate()
    rate = f"{rate_hz:g} Hz" if rate_hz else "no fixed rate"
    told = f"{stream.name()} ({stream.type()}) of {stream.hostname()}: {stream.channel_count()} channels, {rate}"
    if stream.type().lower() != GAZE:
        return Finding(WHAT, State.OK, f"{told}; not gaze by its type")
    try:
        offset_s = pylsl.StreamInlet(stream, recover=False).time_correction(timeout=limit_s)
    except RuntimeError:  # pylsl's lost stream and timeout are both
        return Finding(WHAT, State.TROUBLE, f"{told}; it does not answer", "is its program still running, and well?")
    return Finding(WHAT, State.OK, f"{told}; its clock is {-offset_s:+.4f} s from this computer's")
