"""What can go wrong in model/: one class, one line each, with the way out."""

from __future__ import annotations


class ModelError(Exception):
    """A model was asked for something it can't be or do.

    The message is one line: what was wrong, with which name or path, and the way out. ``exit_code`` 2 says
    that the request was refused and nothing was changed.
    """

    code: str = "model"
    exit_code: int = 2
