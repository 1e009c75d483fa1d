"""What the numbers mean when learning is not real: one line for each thing that is wrong.

    skill_negative     the upper end of the skill's interval is under 0: worse than guessing
    skill_fell         skill was there in the older half of the window and is under 0 in the newer
    rank_low           rank under 0.8 of the frozen network's, and the probe under the untrained twin's; or rank
                       under 0.6, and the probe not above the twin's: that slow context is why must then show
    rank_lost          rank under a quarter of the frozen network's, whatever the probe: slow context alone takes
                       no more than half
    rank_high          rank over 1.4 of the frozen network's while skill falls: chaos
    gradient_doubtful  live cosine under 0.9, and credit's too, where recurrent forward propagation is an approximation
    gradient_lost      live cosine under 0.5, and credit's too

The word "learning" is said while the lower end of the skill's interval is above 0 and no alarm of rank stands: skill is
told in the learner's own embedding, and an embedding that has shrunk to what is easily predicted has skill in it.

All but gradient_doubtful are alarms. None of them can tell a stream with nothing to learn from a learner that did
not: the probe's ceiling can.
"""

from __future__ import annotations

from typing import NamedTuple

from model.bootstrap import Interval
from model.fidelity import Fidelity
from model.frozen_rank import Rank
from model.skill import Skill

KINDS = {
    "skill_negative": "alarm",
    "skill_fell": "alarm",
    "rank_low": "alarm",
    "rank_lost": "alarm",
    "rank_high": "alarm",
    "gradient_doubtful": "warning",
    "gradient_lost": "alarm",
}
"""How serious each kind is."""
_RANK_LOW, _RANK_DOUBTED, _RANK_LOST, _RANK_HIGH = 0.8, 0.6, 0.25, 1.4
_FALLS_BY = 0.01
_DOUBTFUL, _LOST = 0.9, 0.5


class Warned(NamedTuple):
    """One thing that is wrong."""

    kind: str
    """One of :data:`KINDS`."""
    detail: str
    """One line: the numbers."""


def about_skill(skill: Skill, older: Skill, newer: Skill) -> list[Warned]:
    """From the skill of the window and of its two halves."""
    found = []
    if skill.skill.high is not None and skill.skill.high < 0.0:
        interval = f"{skill.skill.value:+.3f} ({skill.skill.low:+.3f} to {skill.skill.high:+.3f})"
        found.append(Warned("skill_negative", f"skill {interval}: worse than {skill.opponent}"))
    if older.learning and newer.skill.value is not None and newer.skill.value < 0.0:
        found.append(Warned("skill_fell", f"skill fell from {older.skill.value:+.3f} to {newer.skill.value:+.3f}"))
    return found


def about_rank(rank: Rank, probe_lost: Interval, older: Skill, newer: Skill) -> list[Warned]:
    """From the ranks, the probe less the untrained twin's, and the skill of the window's halves."""
    ratio = rank.ratio
    if ratio is None:
        return []
    told = f"effective rank {rank.now:.1f}, {ratio:.2f} of the frozen network's"
    if ratio < _RANK_LOST:
        return [Warned("rank_lost", f"{told}: the embedding has collapsed")]
    if ratio < _RANK_LOW and probe_lost.high is not None and probe_lost.high < 0.0:
        return [Warned("rank_low", f"{told}, and the probe lost {-(probe_lost.value or 0.0):.3f} of R^2")]
    if ratio < _RANK_DOUBTED and probe_lost.low is not None and probe_lost.low <= 0.0:
        return [Warned("rank_low", f"{told}, and the probe ({probe_lost.value:+.3f} of R^2) does not account for it")]
    if ratio > _RANK_HIGH and older.skill.value is not None and newer.skill.value is not None:
        fell = older.skill.value - newer.skill.value
        if fell > _FALLS_BY:
            return [Warned("rank_high", f"{told}, and skill fell by {fell:.3f}: chaos")]
    return []


def about_gradient(live: Fidelity, credit: Fidelity, *, exact: bool) -> list[Warned]:
    """From the fidelity of the gradients as they were; ``exact``: whether the learner's gradient claims to be."""
    if live.cosine is None or credit.cosine is None:
        return []
    higher = max(live.cosine, credit.cosine)
    told = f"cosine with back-propagation through time: live {live.cosine:.2f}, credit {credit.cosine:.2f}"
    if higher < _LOST:
        return [Warned("gradient_lost", told)]
    if higher < _DOUBTFUL and not exact:
        return [Warned("gradient_doubtful", f"{told}; it is an approximation here")]
    return []
