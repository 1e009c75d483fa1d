"""Which journal entry is being learned right now, told to the next process.

A fixation that kills the process would be learned again for ever. The mark is a few bytes of a mapped file:
the operating system keeps them when the process dies, and setting them costs no system call. It says nothing after
a loss of power, nor needs it to.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

_NUMBER = struct.Struct("<q")


class StepMark:
    """``DATA_DIR/step``: the entry of the step under way, 0 between steps."""

    def __init__(self, path: Path) -> None:
        with path.open("a+b") as file:
            file.truncate(_NUMBER.size)
            self._map = mmap.mmap(file.fileno(), _NUMBER.size)

    @property
    def entry(self) -> int:
        """The entry that was being learned when the mark was last set; 0 for none."""
        return max(0, int(_NUMBER.unpack_from(self._map)[0]))

    def begin(self, entry: int) -> None:
        """A step begins."""
        _NUMBER.pack_into(self._map, 0, entry)

    def end(self) -> None:
        """The step is over, whatever it came to."""
        _NUMBER.pack_into(self._map, 0, 0)

    def close(self) -> None:
        """Give the file back."""
        self._map.close()
