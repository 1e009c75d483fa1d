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

    def take(self, fixation: Fixation, frame: Frame | None, size: FrameSize | None = None) -> bool:
        """Send ``fixation`` as seen on ``frame`` (None: nothing was shown). Whatever is dropped is counted.

        ``size``: the degrees of this frame, where it is of another size than the others. Returns whether it was sent.
        """
        self._summary.found += 1
        size = size or self._size
        if frame is None:
            return self.drop("no_frame")
        try:
            patch = cut(frame.bgr, fixation.x, fixation.y, size)
        except NoPatch as none:
            return self.drop(none.reason)
        while self._patient and not self._sender.wait_room(WAIT_S):
            if self._stop.is_set():  # not lost: the recording is still there
                return self.drop("spool_full")
        taken = self._sender.offer(
            onset_s=fixation.onset_ns / SECOND_NS,
            duration_s=fixation.duration_ns / SECOND_NS,
            gaze=(fixation.x, fixation.y),
            gaze_deg=(fixation.x * size.width_deg, fixation.y * size.height_deg),
            frame_deg=(size.width_deg, size.height_deg),
            patch=patch.rgb,
            padded=patch.padded or None,
            sequence=self._sequence,
        )
        if not taken:
            return self.drop("spool_full")
        self._sequence = None
        self.offered += 1
        self._summary.padded += patch.padded > 0
        return True

    def drop(self, reason: str) -> bool:
        """Count a fixation that was found and is not sent; always False."""
        self._summary.dropped[reason] += 1
        return False
