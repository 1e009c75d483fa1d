"""Which form of an answer a client wants: the Accept header as RFC 9110 12.5.1 reads it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from service.api.problems import Problem

_RANGE = re.compile(r"\s*([\w!#$&^.+-]+|\*)/([\w!#$&^.+-]+|\*)\s*((?:;[^;]*)*)$")
_QUALITY = re.compile(r"\s*q\s*=\s*(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)\s*$", re.IGNORECASE)


def chosen(accept: str | None, offered: Sequence[str]) -> str:
    """The media type of ``offered`` with the highest quality under ``accept``, of several the first.

    Without the header, or with nothing in it that can be read, the first. The most specific range that fits a type
    counts for it; parameters other than ``q`` are not looked at. Raises a :class:`Problem`, 406, where none is wanted.
    """
    ranges = [found for part in (accept or "").split(",") if (found := _range(part)) is not None]
    if not ranges:
        return offered[0]
    qualities = [_quality(media_type, ranges) for media_type in offered]
    best = max(qualities)
    if best <= 0.0:
        raise Problem(
            406,
            "not_acceptable",
            f"this is told as {', '.join(offered)}; name one of them in the header Accept, or send none",
            {"Vary": "Accept"},
            {"offered": list(offered)},
        )
    return offered[qualities.index(best)]


def _range(part: str) -> tuple[str, str, float] | None:
    """(type, subtype, quality) of one member of the header; None where it is none."""
    found = _RANGE.match(part)
    if found is None or (found[1] == "*" and found[2] != "*"):
        return None
    quality = 1.0
    for parameter in found[3].split(";"):
        if parameter.strip().lower().startswith("q"):
            told = _QUALITY.match(parameter)
            if told is None:
                return None
            quality = float(told[1])
    return found[1].lower(), found[2].lower(), quality


def _quality(media_type: str, ranges: list[tuple[str, str, float]]) -> float:
    kind, _, subtype = media_type.partition("/")
    fitting = [
        ((one != "*") + (two != "*"), quality)
        for one, two, quality in ranges
        if one in ("*", kind) and two in ("*", subtype)
    ]
    closest = max((specific for specific, _ in fitting), default=-1)
    return max((quality for specific, quality in fitting if specific == closest), default=0.0)
