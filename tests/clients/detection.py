"""Gaze with known events."""

from __future__ import annotations

import numpy as np

from clients.agreement import Events
from clients.fixations import Detector, DetectorSettings, Fixation, Sample
from clients.units import FrameSize

FRAME = FrameSize(30.0, 20.0)
MS = 1_000_000


def feed(detector: Detector, samples: list[Sample]) -> list[tuple[int, Fixation]]:
    """Every fixation with the number of the sample that finished it."""
    found = [(at, fixation) for at, sample in enumerate(samples) for fixation in detector.feed(sample)]
    return found + [(len(samples), fixation) for fixation in detector.finish()]


def detect(samples: list[Sample], **settings: object) -> list[Fixation]:
    detector = Detector(FRAME, DetectorSettings(**settings))  # type: ignore[arg-type]
    return [fixation for _, fixation in feed(detector, samples)]


class Gaze:
    """Gaze with known events, built up piece by piece: degrees in, samples out."""

    def __init__(self, rate_hz: float = 500.0, noise_deg: float = 0.02, begin_ns: int = 1_000_000_000) -> None:
        self.step_ns = round(1e9 / rate_hz)
        self.now_ns = begin_ns
        self.at_deg = (15.0, 10.0)
        self.noise_deg = noise_deg
        self.samples: list[Sample] = []
        self.events: Events = []
        self._generator = np.random.default_rng(0)

    def _put(self, x_deg: float, y_deg: float, confidence: float = 1.0) -> None:
        x, y = np.array([x_deg, y_deg]) + self._generator.normal(0, self.noise_deg, 2)
        self.samples.append(Sample(self.now_ns, x / FRAME.width_deg, y / FRAME.height_deg, confidence))
        self.now_ns += self.step_ns

    def fixate(self, duration_ms: float, drift_deg_per_s: float = 0.0) -> Gaze:
        """Still, or following something that moves to the right."""
        count, begin = round(duration_ms * MS / self.step_ns), self.now_ns
        for _ in range(count):
            self._put(*self.at_deg)
            self.at_deg = (self.at_deg[0] + drift_deg_per_s * self.step_ns * 1e-9, self.at_deg[1])
        self.events.append((begin, self.now_ns - self.step_ns))
        return self

    def jump(self, x_deg: float, y_deg: float, duration_ms: float = 40.0) -> Gaze:
        """A saccade by so many degrees, with a bell-shaped velocity."""
        (x, y), count = self.at_deg, max(1, round(duration_ms * MS / self.step_ns))
        for at in range(1, count + 1):
            share = 0.5 - 0.5 * np.cos(np.pi * at / (count + 1))
            self._put(x + share * x_deg, y + share * y_deg)
        self.at_deg = (x + x_deg, y + y_deg)
        return self

    def lose(self, duration_ms: float, sample: tuple[float, float] = (0.0, 0.0), confidence: float = 1.0) -> Gaze:
        for _ in range(round(duration_ms * MS / self.step_ns)):
            self.samples.append(Sample(self.now_ns, *sample, confidence))
            self.now_ns += self.step_ns
        return self
