"""``rjepa worker``: takes fixations, learns them one after the other, and can be asked about it.

Four threads share the work: ingest (:mod:`service.ingest`) owns the door, the main thread the learner, one the
control socket (:mod:`service.control`), one writes checkpoints (:mod:`service.checkpointing`).
"""

from __future__ import annotations

import signal
import sys
from types import FrameType

from service import collector, log
from service.mailbox import Mailbox, Stop
from service.outside import opened
from service.parent import end_with_parent
from service.settings import chosen_weights, load_settings


def main(argv: list[str]) -> int:
    """Run until SIGTERM, SIGINT or the end of the parent; 0 after an orderly end, 1 where a thread failed."""
    settings = load_settings(argv, "worker")
    chosen_weights(settings)
    end_with_parent()
    log.set_up(as_json=settings.log_json)
    wake: Mailbox[None] = Mailbox()
    stop = Stop(wake)

    def asked(number: int, frame: FrameType | None) -> None:
        stop.ask()

    signal.signal(signal.SIGTERM, asked)
    signal.signal(signal.SIGINT, asked)
    collector.hold_back()
    with opened(settings) as outside:
        from service.life import Life  # torch takes seconds; what can be refused without it is refused before

        return 0 if stop() else Life(settings, outside, wake, stop).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
