"""The word: "learning" where the lower end of the skill's interval is above 0 and nothing is wrong with the rank.

It can't show more than skill does (model/skill.py): that something is learned, not how much of what there is.
"""

from __future__ import annotations

from typing import NamedTuple

from model.bootstrap import AT_LEAST, BLOCK
from model.ring import WARM
from model.skill import Skill
from model.warned import Warned

LEARNING, NOT_YET = "learning", "not learning yet"
FIRST = WARM + AT_LEAST
"""Predictions before there is a skill."""
ENOUGH = 4 * BLOCK
"""Predictions before the word can be "learning": of fewer, the blocks are too short and few for their interval."""


class Verdict(NamedTuple):
    """One of the two words, and one line of why."""

    word: str
    why: str


def judge(found: Skill, count: int, about_rank: list[Warned]) -> Verdict:
    """From the skill of a window, of how many predictions it knows, and what is wrong with its rank."""
    skill = found.skill
    if skill.value is None or skill.low is None or skill.high is None:
        if count < FIRST:
            return Verdict(NOT_YET, f"too few fixations ({count} of {ENOUGH})")
        return Verdict(NOT_YET, "too many errors are missing or not finite")
    numbers = f"skill {skill.value:+.3f} ({skill.low:+.3f} to {skill.high:+.3f})"
    opponent = f"the best trivial predictor ({found.opponent})"
    if found.learning and count < ENOUGH:
        return Verdict(NOT_YET, f"{numbers}, but too few fixations to be sure ({count} of {ENOUGH})")
    if found.learning and about_rank:
        return Verdict(NOT_YET, f"{numbers}, but {about_rank[0].detail}")
    if found.learning:
        return Verdict(LEARNING, f"{numbers}: better than {opponent}")
    if skill.high < 0.0:
        return Verdict(NOT_YET, f"{numbers}: worse than {opponent}")
    return Verdict(NOT_YET, f"{numbers}: may be no better than {opponent}")
