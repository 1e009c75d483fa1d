"""What the commands on a data directory share: refusals in one line."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from service.errors import SettingsError


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as an exception."""

    def __init__(self, **how: Any) -> None:
        super().__init__(allow_abbrev=False, **how)

    def error(self, message: str) -> NoReturn:
        """Raise :class:`SettingsError`."""
        raise SettingsError(f"{message}; see {self.prog} --help")
