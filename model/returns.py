"""Returns: fixations where the eye comes back to a place of the same scene that it left long ago.

A return after k: within 1 degree of it the eye has been before in this scene, but not at any of the k - 1 fixations
just before. What is seen there next can be known only by who remembers what was seen where, for at least k fixations.

It can't show that the same thing is seen again: within a degree a patch of 5 degrees overlaps much, not all.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

AFTER = 15
WITHIN_DEG = 1.0


def returns(
    gaze_deg: NDArray[np.float64], scene: NDArray[np.int64], *, after: int = AFTER, within: float = WITHIN_DEG
) -> NDArray[np.bool_]:
    """Which of T fixations are returns; ``gaze_deg`` (T, 2) in degrees, ``scene`` (T,) ascending."""
    found = np.zeros(len(scene), dtype=np.bool_)
    bounds = [0, *(np.flatnonzero(scene[1:] != scene[:-1]) + 1).tolist(), len(scene)]
    for first, end in itertools.pairwise(bounds):
        own = gaze_deg[first:end]
        near = np.linalg.norm(own[:, None] - own[None], axis=2) <= within
        back = np.subtract.outer(np.arange(len(own)), np.arange(len(own)))
        found[first:end] = (near & (back >= after)).any(axis=1) & ~(near & (back > 0) & (back < after)).any(axis=1)
    return found
