from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.docs.blocks import commands
from tests.docs.lab import Lab, open_lab
from tests.docs.table import SERVED


@pytest.fixture(scope="session")
def lab(made_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """What the README begins with: the server, and one recording streamed into it."""
    serve = next(command for command in commands() if fnmatch(command.text, SERVED))
    first = next(command for command in commands() if command.text.startswith("rjepa stream recording --video"))
    words = serve.words
    words[words.index("--weights") + 1] = "random"
    with open_lab(tmp_path_factory.mktemp("lab"), made_directory, words, first.words) as opened:
        yield opened
