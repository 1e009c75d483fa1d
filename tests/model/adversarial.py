"""What would ruin a learner, placed in an ordinary stream in which there is something to learn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from model.learner import Learner, Look, Outcome, Watched
from model.skill import Skill, measure, row

Seen = tuple[np.ndarray, Look | None]


def ordinary(n: int, features: int, *, seed: int = 0) -> list[Seen]:
    """z' = turned z + noise, and the picture of the place where the eye lands: both can be known beforehand.

    What turns and what is where is the same for every ``seed``.
    """
    world, rng = np.random.default_rng(features), np.random.default_rng(seed)
    turn = np.linalg.qr(world.standard_normal((features, features)))[0]
    pictures = world.standard_normal((3, 4, features))
    places, noise = rng.random((n, 2)), rng.standard_normal((n, features))
    found: list[Seen] = []
    own = rng.standard_normal(features)
    for (x, y), each in zip(places, noise, strict=True):
        own = 0.7 * turn @ own + (1 - 0.7**2) ** 0.5 * each
        found.append((0.8 * own + 0.6 * pictures[int(3 * y), int(4 * x)], Look((float(x), float(y)))))
    return found


def _picture(features: int) -> np.ndarray:
    """Of mean square 1."""
    picture = np.random.default_rng(99).standard_normal(features)
    found: np.ndarray = picture / np.sqrt((picture**2).mean())
    return found


def _jitter(rng: np.random.Generator, z: np.ndarray) -> np.ndarray:
    """Far enough from the last one to be no repeat."""
    return _picture(z.size) + 0.45 * rng.standard_normal(z.size)


Change = Callable[[np.random.Generator, int, np.ndarray], np.ndarray]
TROUBLES: dict[str, Change] = {
    "constant": lambda rng, t, z: _picture(z.size),
    "jittered constant": lambda rng, t, z: _jitter(rng, z),
    "alternating": lambda rng, t, z: (-1.0) ** t * _picture(z.size),
    "contrast 30": lambda rng, t, z: 30.0 * z,
    "contrast 1000": lambda rng, t, z: 1000.0 * z,
    "far and jittered": lambda rng, t, z: 30.0 * _jitter(rng, z),
    "far and alternating": lambda rng, t, z: (-1.0) ** t * 1000.0 * _picture(z.size),
    "black frames": lambda rng, t, z: 12.0 * _picture(z.size),
    "every other frame black": lambda rng, t, z: 12.0 * _picture(z.size) if t % 2 else z,
    "one flash": lambda rng, t, z: 1000.0 * z if t == 3 else z,
    "nan": lambda rng, t, z: z * (np.nan if t % 3 == 0 else 1.0),
    "inf": lambda rng, t, z: np.where(np.arange(z.size) == t % z.size, -np.inf if t % 3 == 0 else z, z),
    "overflow": lambda rng, t, z: 1e30 * z,
    "gaze far outside": lambda rng, t, z: z,
}
"""By name, what becomes of an ordinary z at step t of the trouble."""


def trouble(name: str, n: int, features: int, *, seed: int = 0) -> list[Seen]:
    """``n`` fixations of :data:`TROUBLES`."""
    rng = np.random.default_rng(seed)
    found: list[Seen] = []
    for t, (z, look) in enumerate(ordinary(n, features, seed=seed + 1)):
        far = (50.0, -40.0) if t % 2 else (1e200, 3.0)
        gaze = Look((0.5, 0.5), gaze_deg=far) if name == "gaze far outside" else look
        found.append((TROUBLES[name](rng, t, z), gaze))
    return found


@dataclass
class Bounds:
    """Watches a learner with the cell ``bounded``: every step against what the cell's formula allows."""

    learner: Learner
    largest_z: float = 0.0
    largest_y: float = 0.0
    largest_x: float = 0.0
    largest_state: float = 0.0
    target_energy: float = 0.0
    """Sum of squares of what the predictor was to give, of all steps."""
    largest_gradient: float = 0.0
    broken: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.learner.watch = self._watched

    def _watched(self, seen: Watched) -> None:
        assert seen.made is not None
        own, new, attempt = seen.made.own, seen.made.new, seen.made.attempt
        before, after = own.state.norm(dim=0), new.state.norm(dim=0)
        allowed = 8.0**0.5 * new.x.abs() + self.learner.config.bound * before
        if not bool((after <= allowed * (1 + 1e-5) + 1e-5).all()):
            self.broken.append(f"step {self.learner.steps}: a state grew beyond |input| + rho |s|")
        self.largest_z = max(self.largest_z, float(seen.z.abs().max()))
        self.largest_y = max(self.largest_y, float(new.y.abs().max()))
        self.largest_x = max(self.largest_x, float(new.x.abs().max()))
        self.largest_state = max(self.largest_state, float(after.max()))
        if attempt is not None:
            self.target_energy += float((new.y - attempt.reading.base).square().sum())
            if attempt.gradient is not None:
                self.largest_gradient = max(self.largest_gradient, float(attempt.gradient.abs().max()))

    def found_broken(self) -> list[str]:
        """What is beyond its bound, of every state and statistic; nothing, if all is well."""
        learner, broken = self.learner, list(self.broken)
        config, tensors = learner.config, learner.snapshot().tensors
        reach = max(self.largest_z, self.largest_y)

        def hold(what: str, value: Tensor, most: float) -> None:
            largest = float(value.abs().max())
            if not largest <= most * (1 + 1e-4):
                broken.append(f"{what} is {largest:.3g}, may be {most:.3g}")

        def ends(what: str, most: float) -> None:
            for name, tensor in tensors.items():
                if name.endswith(what):
                    hold(name, tensor, most)

        broken += [f"{n} is not finite" for n, t in tensors.items() if t.is_floating_point() and not t.isfinite().all()]
        # Each pair: |s'| <= sqrt(8) |x| + rho |s|, so for ever:
        ends("/state", 8.0**0.5 * self.largest_x / (1.0 - config.bound))
        ends("/sensitivities", config.sensitivity_limit)
        ends("/kept", self.largest_z)
        # A mean lies among its values, and an offset from it is at most twice the largest.
        ends("moments/mean", reach)
        ends("moments/variance", (2.0 * reach) ** 2)
        ends("moments/covariance", (2.0 * reach) ** 2)
        ends("scene/means", self.largest_z)
        ends("scene/products", (2.0 * self.largest_z) ** 2)
        # The squares of degrees, three frames of 30 degrees wide.
        ends("action/mean", 60.0**2)
        ends("action/variance", 60.0**4)
        # What a cell of the place memory holds is a mean of what was seen, times its confidence.
        ends("/places_seen", self.largest_z)
        ends("/places_confidence", 1.0)
        # Adam's m and v are means of gradients and of their squares.
        ends("optimiser/m", self.largest_gradient)
        ends("optimiser/v", self.largest_gradient**2)
        return broken + self._least_squares()

    def _least_squares(self) -> list[str]:
        """R is positive definite and its diagonal at most what 200 steps of forgetting make of 1/prior.

        The sum |Wl R^-1 Wl^T| grows at each step by no more than |target|^2, so |Wl|^2 <= max eig R sum |target|^2.
        """
        rls, choices = self.learner.network.rls, self.learner.config.predictor
        assert rls is not None
        eigenvalues = torch.linalg.eigvalsh((rls.inverse + rls.inverse.T) / 2)
        most = choices.forgetting**-200 / choices.prior
        return [
            said
            for said, good in (
                ("R is not positive definite", bool(eigenvalues[0] > 0.0)),
                ("R is not symmetric", bool((rls.inverse - rls.inverse.T).abs().max() < 1e-9 * eigenvalues[-1])),
                ("R wound up", bool(rls.inverse.diagonal().max() <= most * (1 + 1e-9))),
                ("Wl ran away", float(rls.weights.square().sum()) <= float(eigenvalues[-1]) * self.target_energy),
            )
            if not good
        ]


@dataclass
class Lived:
    """What came of a stream."""

    rows: list[Tensor] = field(default_factory=list)
    """Errors as model/skill.py orders them, of the ordinary fixations; NaN where there was no prediction."""
    skipped: dict[str, int] = field(default_factory=dict)
    cut_units: int = 0

    def skill(self, last: int) -> Skill:
        """Of the last ordinary fixations."""
        return measure(torch.stack(self.rows[-last:]))

    def take(self, outcome: Outcome, *, judged: bool) -> None:
        self.cut_units += outcome.cut_units
        if outcome.skipped is not None:
            self.skipped[outcome.skipped] = self.skipped.get(outcome.skipped, 0) + 1
        if judged:
            error = outcome.prediction_error
            self.rows.append(row(float("nan") if error is None else error, outcome.trivial))


def live(learner: Learner, stream: Iterator[tuple[Seen, bool]]) -> Lived:
    """``stream`` gives fixations, and whether each is ordinary."""
    lived = Lived()
    for (z, look), judged in stream:
        lived.take(learner.observe("a", z, look), judged=judged)
    return lived


def disturbed(usual: list[Seen], *, every: int, until: int, length: int) -> Iterator[tuple[Seen, bool]]:
    """``usual`` with one trouble after the other put in after every ``every`` fixations, up to ``until``."""
    names = list(TROUBLES)
    for t, seen in enumerate(usual):
        if t and t % every == 0 and t <= until:
            index = t // every - 1
            for bad in trouble(names[index % len(names)], length, seen[0].size, seed=1000 + index):
                yield bad, False
        yield seen, True
