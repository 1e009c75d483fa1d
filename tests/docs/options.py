"""What each command takes, by its own ``--help``; and whether a command line that is told could be typed at all."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from functools import cache
from typing import Any

import pytest
import tomllib
import yaml

import rjepa
from tests.helpers import ROOT

DIVIDED = ("stream", "keys", "token", "experiment", "bench")
"""Commands whose second word says which of several is meant."""
ANY = re.compile(r"^(?:\.\.\.|[A-Z]+)$")
"""In place of a word: any of them."""


def fault(text: str) -> str | None:
    """What is wrong with a command line; None where nothing is."""
    words = shlex.split(text)
    check = {"rjepa": _of_ours, "docker": _of_docker, "pip": _of_pip, "make": _of_make, "python": _of_python}
    return check[words[0]](words[1:]) if words[0] in check else None


def every_flag() -> set[str]:
    """All flags of all commands."""
    return set().union(*(flags_of(command) for command in every_command()))


def flags_of(command: tuple[str, ...]) -> set[str]:
    """The flags of one command."""
    return _flags(help_of(command))


@cache
def every_command() -> tuple[tuple[str, ...], ...]:
    return tuple(
        (word, *sub)
        for word in rjepa.COMMANDS
        for sub in ([(kind,) for kind in kinds(word)] if word in DIVIDED else [()])
    )


@cache
def help_of(command: tuple[str, ...]) -> str | None:
    """The text of ``rjepa <command> --help``; None where there is no such command."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patched, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patched.setenv("COLUMNS", "1000")  # or a flag is broken at its hyphen
        try:
            code = rjepa.main([*command, "--help"])
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
    return out.getvalue() if code == 0 else None


@cache
def kinds(word: str) -> list[str]:
    """The second words of ``word``, as its help lists them."""
    told = help_of((word,)) or ""
    listed = re.search(r"\{([\w,-]+)\}", told)
    names = listed[1].split(",") if listed else re.findall(r"(?m)^ {2,4}([a-z][\w-]*)(?: |$)", told)
    return [name for name in names if help_of((word, name)) is not None]


def _flags(told: str | None) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z](?:[a-z-]*[a-z])?", told or ""))


def _of_ours(words: list[str]) -> str | None:
    if not words or words[0] not in rjepa.COMMANDS:
        return f"rjepa has no command {words[:1]}"
    command = words[:1]
    told = [help_of(tuple(command))]
    if words[0] in DIVIDED and len(words) > 1 and not words[1].startswith("-"):
        command = words[:2]
        told = (
            [help_of((words[0], kind)) for kind in kinds(words[0])]
            if ANY.match(words[1])
            else [help_of(tuple(command))]
        )
    if None in told:
        return f"rjepa has no command {' '.join(command)}"
    known = set().union(*(_flags(each) for each in told))
    for at, word in enumerate(words):
        flag, given, value = word.partition("=")
        if not flag.startswith("--"):
            continue
        if flag not in known | {"--help", "--config"}:
            return f"rjepa {' '.join(command)} has no option {flag}"
        after = value if given else (words[at + 1] if at + 1 < len(words) else "")
        choices = re.search(rf"{flag} \{{([\w,.-]+)\}}", " ".join(filter(None, told)))
        if choices and after and not ANY.match(after) and after not in choices[1].split(","):
            return f"rjepa {' '.join(command)} {flag} takes {choices[1]}, not {after}"
    return None


def _of_docker(words: list[str]) -> str | None:
    compose: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    profiles = {profile for service in compose.values() for profile in service.get("profiles", [])}
    if words[0] != "compose":
        return None
    for at, word in enumerate(words):
        if word == "--profile" and words[at + 1] not in profiles:
            return f"no profile {words[at + 1]} in docker-compose.yml"
    last = [word for word in words if word in ("up", "run")]
    named = words[words.index(last[0]) + 1 :] if last else []
    named = [word for at, word in enumerate(named) if not word.startswith("-") and named[at - 1] != "--entrypoint"]
    asked = named[:1] if last == ["run"] else named
    missing = [word for word in asked if word not in compose]
    return f"no service {missing} in docker-compose.yml" if missing else None


def _of_pip(words: list[str]) -> str | None:
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    asked = {extra for found in re.findall(r"\[([\w,-]+)\]", " ".join(words)) for extra in found.split(",")}
    return f"no extra {asked - extras} in pyproject.toml" if asked - extras else None


def _of_make(words: list[str]) -> str | None:
    targets = re.findall(r"(?m)^([a-z]+):", (ROOT / "Makefile").read_text())
    missing = [word for word in words if "=" not in word and word not in targets]
    return f"no target {missing} in the Makefile" if missing else None


def _of_python(words: list[str]) -> str | None:
    if words[0] != "-m":
        return None
    file = ROOT / f"{words[1].replace('.', '/')}.py"
    if not file.is_file():
        return f"no module {words[1]}"
    missing = [word for word in words if word.startswith("--") and f'"{word}"' not in file.read_text()]
    return f"{words[1]} has no option {missing}" if missing else None
