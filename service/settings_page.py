"""``python -m service.settings_page``: docs/settings.md, made from the settings themselves."""

from __future__ import annotations

import sys
from typing import Any, get_args

from pydantic_core import PydanticUndefined

from service.settings import ENV_PREFIX, Settings

_HEAD = """\
# Settings

Of `rjepa serve`, `rjepa worker` and `rjepa api`. A flag goes before the environment variable, that before the
key of the TOML file given by `--config`. Made from the source by `make docs`.

| flag | environment | key | default | what |
|---|---|---|---|---|
"""


def page() -> str:
    """The page as Markdown."""
    rows = []
    for name, field in Settings.model_fields.items():
        told = " ".join((field.description or "").split()).replace("|", "\\|")
        words = [
            f"`--{name.replace('_', '-')}`",
            f"`{ENV_PREFIX}{name.upper()}`",
            f"`{name}`",
            _default(field.default),
            told + _choices(field.annotation, told),
        ]
        rows.append(f"| {' | '.join(words)} |")
    return _HEAD + "\n".join(rows) + "\n"


def _default(value: Any) -> str:
    return "" if value is None or value is PydanticUndefined else f"`{value}`"


def _choices(annotation: Any, told: str) -> str:
    """The names a choice has, where the help does not say them."""
    names = [name for part in (annotation, *get_args(annotation)) for name in get_args(part) if isinstance(name, str)]
    missing = [name for name in dict.fromkeys(names) if name not in told]
    return f" ({', '.join(dict.fromkeys(names))})" if missing else ""


if __name__ == "__main__":
    sys.stdout.write(page())
