"""Python's collector of cycles, out of the way of what must not wait.

It stops every thread while it looks at all there is: with torch and its libraries a third of a million things and a
fifth of a second or more, for the door, which then acks nothing, as for the learner. Nearly all of it is there from the
start and stays to the end; what comes later is little.
"""

from __future__ import annotations

import gc


def hold_back() -> None:
    """Collect nothing until :func:`leave_out`: while all is being imported and made there is little to be found."""
    gc.disable()


def leave_out() -> None:
    """Collect from now on, and look no more at what is there already."""
    gc.collect()
    gc.freeze()
    gc.enable()
