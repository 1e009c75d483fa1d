"""``rjepa bench step``: one learning step beside a copy of the bytes it touches, and beside its rivals."""

from __future__ import annotations

import argparse

from service.bench_record import Found


def add_options(parser: argparse.ArgumentParser) -> None:
    """Which circuits, how often."""


def run(arguments: argparse.Namespace) -> Found:
    """One row for each circuit."""
    return {"rows": []}


def told(found: Found, *, markdown: bool) -> str:
    """One line for each circuit."""
    return ""
