"""What ``rjepa doctor`` found of one thing it looked for: one line, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class State(str, Enum):
    """How it is."""

    OK = "ok"
    ABSENT = "absent"
    """Not there, which is right where a lab has none."""
    TROUBLE = "trouble"
    """There, and not usable as it is."""


@dataclass(frozen=True)
class Finding:
    """``what`` was looked for, its ``state``, what is ``told`` of it, and the ``remedy`` where it is not ok."""

    what: str
    state: State
    told: str
    remedy: str | None = None

    def lines(self) -> str:
        """For people: one line, the remedy on one of its own."""
        line = f"{self.what:<14} {self.state.value:<8} {self.told}"
        return line if self.remedy is None else f"{line}\n{'':<14} {'':<8} -> {self.remedy}"
