"""A hundred thousand fixations, a tenth of them such as would ruin a learner."""

from __future__ import annotations

import pytest

from model.config import ModelConfig
from model.learner import Learner
from tests.model.adversarial import TROUBLES, Bounds, disturbed, live, ordinary

pytestmark = pytest.mark.soak

ORDINARY, EVERY, LENGTH = 90_900, 900, 100
JUDGED = 5_000


def test_the_default_is_bounded_and_learns_as_if_nothing_had_been() -> None:
    config = ModelConfig.preset("default")
    usual = ordinary(ORDINARY, config.features)
    calm = live(Learner(config, seed=0), disturbed(usual, every=EVERY, until=0, length=LENGTH))
    learner = Learner(config, seed=0)
    bounds = Bounds(learner)
    until = ORDINARY - JUDGED - 4 * EVERY
    shaken = live(learner, disturbed(usual, every=EVERY, until=until, length=LENGTH))
    assert until // EVERY > 6 * len(TROUBLES)
    assert bounds.found_broken() == []
    assert learner.cut_units == shaken.cut_units
    assert shaken.skipped["refused"] > 3 * calm.skipped.get("refused", 0) + 3_000
    undisturbed, found = calm.skill(JUDGED).skill, shaken.skill(JUDGED).skill
    print(f"skill {found.value} after it, {undisturbed} without; cut {shaken.cut_units}")
    assert undisturbed.low is not None
    assert undisturbed.high is not None
    assert found.value is not None
    assert undisturbed.low > 0.0
    assert undisturbed.low <= found.value <= undisturbed.high
