"""What a person sees while a stream runs: a bar on a terminal, and in any case a line when something is wrong."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from clients.sender import Status
from clients.summary import Summary

if TYPE_CHECKING:
    from typing_extensions import Self

FINITE = "{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total:.1f} s{postfix}"
ENDLESS = "{desc}: {n:.1f} s{postfix}"


class Progress:
    """``total_s``: seconds of the source, None if it has no end. Everything goes to stderr."""

    def __init__(self, name: str, total_s: float | None) -> None:
        tqdm.monitor_interval = 0  # no thread of its own
        self._bar: tqdm[Any] = tqdm(
            total=None if total_s is None else round(total_s, 1),
            desc=name,
            unit="s",
            mininterval=0.2,
            disable=not sys.stderr.isatty(),
            bar_format=ENDLESS if total_s is None else FINITE,
            file=sys.stderr,
        )
        self._trouble: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def show(self, position_s: float | None, summary: Summary, status: Status) -> None:
        """Where the source stands (None: where it did), and what became of its fixations."""
        summary.hear(status)
        dropped = sum(summary.dropped.values())
        counts = f"found {summary.found} sent {summary.sent} acked {summary.acked} learned {summary.learned}"
        self._bar.set_postfix_str(f"{counts} dropped {dropped}", refresh=False)
        if position_s is not None and position_s > self._bar.n:
            self._bar.update(min(position_s, self._bar.total or position_s) - self._bar.n)
        elif not self._bar.disable:
            self._bar.refresh()
        if status.trouble != self._trouble:
            self._trouble = status.trouble
            self.say(status.trouble or "going on")

    def say(self, text: str) -> None:
        """A line of its own, without breaking the bar."""
        self._bar.write(text, file=sys.stderr)
        sys.stderr.flush()
