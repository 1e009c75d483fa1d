"""From a fixation and a video to a message: the way every source takes."""

from __future__ import annotations

import threading

from clients.fixations import Fixation
from clients.patches import NoPatch, cut
from clients.sender import Sender
from clients.summary import Summary
from clients.units import FrameSize
from clients.video import SECOND_NS, Frame

WAIT_S = 0.5


class Pipeline:
    """Cuts the patch of each fixation, hands it to ``sender`` and keeps ``summary``.

    ``size``: the degrees the frame subtends. ``sequence``: the name of the sequence that begins with the first
    fixation sent, None for a live stream. ``patient``: wait for room in the spool (a recording) instead of dropping.
    """

    def __init__(
        self,
        sender: Sender,
        size: FrameSize,
        summary: Summary,
        stop: threading.Event,
        *,
        sequence: str | None,
        patient: bool,
    ) -> None:
        self._sender = sender
        self._size = size
        self._summary = summary
        self._stop = stop
        self._sequence = sequence
        self._patient = patient
        self.offered = 0
        """Fixations that went on to the sender."""

    def begin(self, sequence: str) -> None:
        """The next fixation sent begins a new sequence of this name."""
        self._sequence = sequence

    def take(self, fixation: Fixation, frame: Frame | None) -> bool:
        """Send ``fixation`` as seen on ``frame`` (None: nothing was shown). Whatever is dropped is counted.

        Returns whether it was sent.
        """
        self._summary.found += 1
        if frame is None:
            self._summary.dropped["no_frame"] += 1
            return False
        try:
            patch = cut(frame.bgr, fixation.x, fixation.y, self._size)
        except NoPatch as none:
            self._summary.dropped[none.reason] += 1
            return False
        while True:
            taken = self._sender.offer(
                onset_s=fixation.onset_ns / SECOND_NS,
                duration_s=fixation.duration_ns / SECOND_NS,
                gaze=(fixation.x, fixation.y),
                gaze_deg=(fixation.x * self._size.width_deg, fixation.y * self._size.height_deg),
                frame_deg=(self._size.width_deg, self._size.height_deg),
                patch=patch.rgb,
                padded=patch.padded or None,
                sequence=self._sequence,
                wait_s=WAIT_S if self._patient else 0.0,
            )
            if taken or not self._patient or self._stop.is_set():
                break
        if not taken:
            self._summary.dropped["spool_full"] += 1
            return False
        self._sequence = None
        self.offered += 1
        self._summary.padded += patch.padded > 0
        return True
