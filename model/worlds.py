"""Planted worlds: scanpaths with something to find that only memory can find, and the best there is, known.

There are 12 places, each a dead-leaves picture of its own, and 24 views of each: the eye lands a little beside,
under a little other light. The place of fixation t follows from the place k fixations before it,

    place_t = next(place_{t-k})                  with probability 0.9                     (1)
    place_t = any place                          with probability 0.1

where ``next`` is one ring through all places in random order. So the last k places are k rings apart, each with
jumps of its own, and for k > 1 the place before tells nothing of the next. Knowing (1), the best guess of z_t is

    E[z | rule] = 0.9 mean z(next(place_{t-k})) + 0.1 mean z                               (2)

and of the embedding, with the learner's own circuit and its present state, U RGC(s, V E[z | rule]). Of what the
circuit's own memory leaves open, a learner can find

    share of the optimum = (E carry-mean - E) / (E carry-mean - E optimum)                 (3)

Letters: T fixations, p places, v views of each, m features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.deadleaves import PATCH_PX, dead_leaves
from model.errors import ModelError

PLACES = 12
VIEWS = 24
JUMP = 0.1
BACKS = (1, 2, 5, 10)
"""The k of the worlds that are measured."""

_WINDOW_PX = 44.0
"""What a view sees of its picture's 50 x 50; brought to 50 x 50 again."""
_SCATTER_PX = 1.5
"""Standard deviation of where the eye lands, each axis: 0.15 degrees."""
_LIGHT = 0.05
"""Standard deviation of the logarithm of a view's light."""
_NOISE = 2.0
"""Standard deviation of a pixel's noise, of 255."""
_MOST_CHROMA = 64.0
"""Root mean square of a picture's opponent colours, of 255. A picture in glaring colours lies so far from the others
in the retina's features that a world with one in it asks little more than whether that one comes next."""
_SEEDS = 7919
"""Worlds draw their pictures from seeds from here on, apart from those that calibrations use."""

Patches = NDArray[np.uint8]
Features = NDArray[np.float32]


def place_patches(seed: int, *, places: int = PLACES, views: int = VIEWS) -> Patches:
    """The pictures of a world: (places, views, 50, 50, 3) uint8 RGB. A place depends on (seed, its index) alone."""
    pictures = _pictures(seed, places)
    found = np.empty((places, views, PATCH_PX, PATCH_PX, 3), np.uint8)
    for place, picture in enumerate(pictures):
        random = np.random.default_rng((_SEEDS + seed, place, 1))
        for view in range(views):
            found[place, view] = _view(picture, random)
    return found


def _pictures(seed: int, places: int) -> Patches:
    """The first ``places`` dead leaves of the seed that are in no glaring colour."""
    count = 2 * places
    while True:
        drawn = dead_leaves(count, seed=_SEEDS + seed)
        red, green, blue = np.moveaxis(drawn.astype(np.float64), -1, 0)
        chroma = np.sqrt(((red - green) ** 2 + (blue - (red + green) / 2) ** 2).mean(axis=(1, 2)))
        plain: Patches = drawn[chroma <= _MOST_CHROMA]
        if len(plain) >= places:
            chosen: Patches = plain[:places]
            return chosen
        count *= 2


def _view(picture: Patches, random: np.random.Generator) -> Patches:
    """One look at ``picture`` (50, 50, 3): shifted, in other light, with noise; uint8 alike."""
    slack = (PATCH_PX - _WINDOW_PX) / 2
    low = np.clip(slack + random.normal(0.0, _SCATTER_PX, 2), 0.0, 2 * slack)
    values = picture.astype(np.float64)
    for axis in (0, 1):
        values = np.moveaxis(_stretched(np.moveaxis(values, axis, 0), low[axis]), 0, axis)
    values = values * np.exp(random.normal(0.0, _LIGHT)) + random.normal(0.0, _NOISE, values.shape)
    seen: Patches = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return seen


def _stretched(values: NDArray[np.float64], low: float) -> NDArray[np.float64]:
    """The window from ``low`` along the first axis, linearly brought to its whole length."""
    positions = low + (np.arange(PATCH_PX) + 0.5) * (_WINDOW_PX / PATCH_PX) - 0.5
    positions = np.clip(positions, 0.0, PATCH_PX - 1.001)
    below = positions.astype(np.intp)
    share = (positions - below)[:, None, None]
    between: NDArray[np.float64] = values[below] * (1.0 - share) + values[below + 1] * share
    return between


@dataclass(frozen=True)
class Walk:
    """A scanpath, T fixations. Places and views are int64."""

    back: int
    """k."""
    following: NDArray[np.int64]
    """(p,): ``next`` of equation (1)."""
    place: NDArray[np.int64]
    """(T,)."""
    view: NDArray[np.int64]
    """(T,)."""
    ruled: NDArray[np.int64]
    """(T,): the place that the rule says; -1 where nothing is known, in the first k of a sequence."""
    start: NDArray[np.bool_]
    """(T,): where a sequence begins."""


def walk(
    back: int,
    steps: int,
    *,
    seed: int,
    places: int = PLACES,
    views: int = VIEWS,
    jump: float = JUMP,
    sequence_length: int | None = None,
) -> Walk:
    """A scanpath of ``steps`` fixations by equation (1); with ``sequence_length`` it begins anew so often.

    A shorter scanpath of the same seed is the beginning of a longer one. Raises :class:`ModelError` for
    what is no world.
    """
    if back < 1 or places < 2 or views < 1 or steps < 0 or not 0.0 <= jump <= 1.0:
        raise ModelError(f"no world with back {back}, places {places}, views {views}, jump {jump}, {steps} fixations")
    if sequence_length is not None and sequence_length <= back:
        raise ModelError(f"sequences of {sequence_length} fixations are too short for a rule {back} back")
    random = np.random.default_rng((_SEEDS + seed, back, 2))
    ring = random.permutation(places)
    following = np.empty(places, np.int64)
    following[ring] = np.roll(ring, -1)
    draws = random.random((steps, 3))
    anywhere = (draws[:, 1] * places).astype(np.int64)
    position = np.arange(steps) % sequence_length if sequence_length else np.arange(steps)
    place, ruled = anywhere.copy(), np.full(steps, -1, np.int64)
    for t in np.flatnonzero(position >= back):
        ruled[t] = following[place[t - back]]
        if draws[t, 0] >= jump:
            place[t] = ruled[t]
    return Walk(back, following, place, (draws[:, 2] * views).astype(np.int64), ruled, position == 0)


@dataclass(frozen=True)
class PlantedWorld:
    """A walk and what is seen on it."""

    walk: Walk
    table: Features
    """(p, v, m): z of every view of every place."""
    jump: float = JUMP

    def __len__(self) -> int:
        return len(self.walk.place)

    @property
    def features(self) -> Features:
        """z of every fixation: (T, m)."""
        seen: Features = self.table[self.walk.place, self.walk.view]
        return seen

    @property
    def best_guess(self) -> Features:
        """Equation (2) for every fixation: (T, m); the mean of all places where the rule says nothing."""
        means = self.table.mean(axis=1, dtype=np.float64)
        overall = means.mean(axis=0)
        guesses = (1.0 - self.jump) * means[self.walk.ruled] + self.jump * overall
        guesses[self.walk.ruled < 0] = overall
        told: Features = guesses.astype(np.float32)
        return told

    def shuffled(self, seed: int) -> PlantedWorld:
        """The same fixations in random order: nothing to find, and the rule says nothing."""
        order = np.random.default_rng((_SEEDS + seed, 3)).permutation(len(self))
        old = self.walk
        nothing = np.full(len(self), -1, np.int64)
        mixed = Walk(old.back, old.following, old.place[order], old.view[order], nothing, old.start)
        return PlantedWorld(mixed, self.table, self.jump)


def make_world(
    features: Callable[[Patches], Features],
    back: int,
    steps: int,
    *,
    seed: int,
    sequence_length: int | None = None,
) -> PlantedWorld:
    """The world of ``seed``, seen by ``features`` (patches (N, 50, 50, 3) to z (N, m)), often a kept table."""
    patches = place_patches(seed)
    table: Features = features(patches.reshape(-1, *patches.shape[2:])).reshape(*patches.shape[:2], -1)
    return PlantedWorld(walk(back, steps, seed=seed, sequence_length=sequence_length), table)


def patches_digest(patches: Patches) -> str:
    """Sha256, in hex, of shape and pixels: the name under which features are kept."""
    return hashlib.sha256(repr(patches.shape).encode() + np.ascontiguousarray(patches).tobytes()).hexdigest()


def picture(world_seed: int, path: Walk, *, shown: int = 48, columns: int = 12) -> Patches:
    """What a person can look at: uint8 (height, width, 3) RGB.

    Above, a row for each place along the ring, eight views each; below, the first ``shown`` fixations of the
    scanpath in reading order, a bar under each: blue where the rule held, orange where it was a jump, grey where
    the rule said nothing.
    """
    patches = place_patches(world_seed)
    ring = [0]
    while len(ring) < len(path.following):
        ring.append(int(path.following[ring[-1]]))
    above = [[_framed(patches[place, view]) for view in range(8)] for place in ring]
    half = (len(above) + 1) // 2
    rows = [_row(above[i] + [_blank(12)] + (above[i + half] if i + half < len(above) else [])) for i in range(half)]
    width = rows[0].shape[1]
    below = []
    for first in range(0, min(shown, len(path.place)), columns):
        strip = [
            _framed(patches[path.place[t], path.view[t]], _bar(path, t))
            for t in range(first, min(first + columns, shown, len(path.place)))
        ]
        below.append(_row(strip))
    whole = [*rows, np.full((12, width, 3), 255, np.uint8), *below]
    widest = max(row.shape[1] for row in whole)
    return np.concatenate([_padded(row, widest) for row in whole])


_BLUE, _ORANGE, _GREY = (0, 90, 181), (230, 120, 0), (160, 160, 160)
_BORDER_PX = 2
_BAR_PX = 6


def _bar(path: Walk, t: int) -> tuple[int, int, int]:
    if path.ruled[t] < 0:
        return _GREY
    return _BLUE if path.ruled[t] == path.place[t] else _ORANGE


def _framed(patch: Patches, colour: tuple[int, int, int] | None = None) -> Patches:
    side = PATCH_PX + 2 * _BORDER_PX
    framed = np.full((side + (_BAR_PX if colour else 0), side, 3), 255, np.uint8)
    framed[_BORDER_PX : _BORDER_PX + PATCH_PX, _BORDER_PX : _BORDER_PX + PATCH_PX] = patch
    if colour:
        framed[side - 1 : -1, _BORDER_PX:-_BORDER_PX] = colour
    return framed


def _blank(width: int) -> Patches:
    return np.full((PATCH_PX + 2 * _BORDER_PX, width, 3), 255, np.uint8)


def _row(parts: list[Patches]) -> Patches:
    return np.concatenate(parts, axis=1)


def _padded(row: Patches, width: int) -> Patches:
    return np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=255)
