"""What the README and the pages of docs/ tell people to type: commands, programs, and commands named in a sentence."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.helpers import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"^ {4}((?:rjepa|python|pip|make|curl|docker) .*)$", re.MULTILINE)
_BESIDE = re.compile(r"\s{3,}[^\\]*$")
"""What stands beside a command in an indented block: told, not typed."""


@dataclass(frozen=True)
class Block:
    """A fenced block: ``language`` as it is named, ``line`` of its first line."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Command:
    """One command line, continuations joined and comments left out."""

    page: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line} {self.text}"

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text)


@cache
def texts() -> dict[str, str]:
    """Every page by its path from the root on."""
    return {str(path.relative_to(ROOT)): path.read_text() for path in PAGES}


def blocks(language: str) -> list[Block]:
    """The fenced blocks in ``language`` of all pages, in their order."""
    found = []
    for page, text in texts().items():
        for fence in _FENCE.finditer(text):
            if fence[1] == language:
                found.append(Block(page, _line(text, fence.start(2)), language, fence[2]))
    return found


def commands() -> list[Command]:
    """Every command line of the sh blocks, and of the indented ones that begin with a program's name."""
    found = []
    for block in blocks("sh"):
        line = block.line
        for text in re.split(r"(?<!\\)\n", block.text):
            typed = " ".join(_without_comment(text.replace("\\\n", " ")).split())
            if typed:
                found.append(Command(block.page, line, typed))
            line += text.count("\n") + 1
    for page, text in texts().items():
        for line in _INDENTED.finditer(_FENCE.sub(lambda fence: "\n" * fence[0].count("\n"), text)):
            found.append(Command(page, _line(text, line.start()), _BESIDE.sub("", line[1]).strip()))
    return found


def named() -> list[Command]:
    """Commands of ours that a sentence or a table names: `rjepa ...`."""
    found = []
    for page, text in texts().items():
        bare = _FENCE.sub(lambda fence: "\n" * fence[0].count("\n"), text)
        for span in re.finditer(r"`(rjepa\s[^`]+)`", bare):
            found.append(Command(page, _line(bare, span.start()), " ".join(span[1].split())))
    return found


def flags() -> list[tuple[str, str]]:
    """(page, flag) of every flag that stands by itself between backticks, or begins what stands there."""
    found = []
    for page, text in texts().items():
        for span in re.findall(r"`(--[^`]*)`", _FENCE.sub("", text)):
            found += [(page, flag) for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", span)]
    return found


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def _without_comment(text: str) -> str:
    """``text`` up to a # that begins a word outside quotes."""
    quoted = ""
    for at, letter in enumerate(text):
        if quoted:
            quoted = "" if letter == quoted else quoted
        elif letter in "'\"":
            quoted = letter
        elif letter == "#" and (at == 0 or text[at - 1].isspace()):
            return text[:at]
    return text


def exists(test: str) -> bool:
    """Whether ``tests/file.py::name`` is a test."""
    file, _, name = test.partition("::")
    path = Path(ROOT / file)
    return path.is_file() and bool(re.search(rf"^(?:async )?def {name}\(", path.read_text(), re.MULTILINE))
