"""What became of a stream's fixations, counted."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from clients.errors import OptionError
from clients.sender import Status


@dataclass
class Summary:
    """Fixations ``found``; of these ``sent``, ``acked`` and ``learned``; ``padded`` of the sent; ``dropped`` by reason.

    Reasons: ``off_frame`` (gaze outside the frame), ``no_frame`` (no frame was shown at its onset), ``black``
    (nothing to be seen), ``spool_full``; of a live source also ``frame_broken`` (its bytes are no picture) and
    ``frame_size`` (nothing says its degrees). found = sent + dropped once a stream has ended.
    ``source``: of a live source, what was wrong with what it brought, by name; None for any other.
    """

    found: int = 0
    sent: int = 0
    acked: int = 0
    learned: int = 0
    padded: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    source: dict[str, int] | None = None

    def hear(self, status: Status) -> None:
        """Take over the sender's counts."""
        self.sent, self.acked, self.learned = status.sent, status.acked, status.learned

    def as_json(self) -> str:
        """One JSON object with exactly these keys; ``source`` for a live source only."""
        told = vars(self) | {"dropped": dict(sorted(self.dropped.items()))}
        return json.dumps({key: value for key, value in told.items() if value is not None})

    def write(self, path: Path) -> None:
        """As a JSON file. Raises :class:`OptionError`."""
        try:
            path.write_text(self.as_json() + "\n", encoding="utf-8")
        except OSError as error:
            raise OptionError(f"--summary {path} can't be written: {error.strerror}") from None

    def words(self) -> str:
        """For people, on one line."""
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(self.dropped.items()))
        return (
            f"found {self.found}, sent {self.sent}, acked {self.acked}, learned {self.learned}, "
            f"padded {self.padded}, dropped {reasons or 'none'}{self._source_words()}"
        )

    def _source_words(self) -> str:
        if self.source is None:
            return ""
        faults = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in sorted(self.source.items()))
        return f"; source: {faults or 'nothing was wrong'}"
