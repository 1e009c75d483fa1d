"""Every command and every program of the README and the pages does what it is told to do, or is named with its test."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from fnmatch import fnmatch

import pytest

from tests.docs import options, table
from tests.docs.blocks import Block, Command, blocks, commands, exists, flags, named, texts
from tests.docs.lab import LIMIT_S, Lab

COMMANDS = commands()
OF_OTHERS = {"--profile", "--no-deps", "--privileged"} | {
    flag for path in options.ROOT.glob("docs/examples/*.py") for flag in re.findall(r'"(--[a-z-]+)"', path.read_text())
}
"""Flags of other programs that a page names, and of the examples."""


def _found(patterns: Sequence[str], command: Command) -> str | None:
    """The pattern that ``command`` fits."""
    return next((pattern for pattern in patterns if fnmatch(command.text, pattern)), None)


def _run_here(command: Command) -> bool:
    return _found([*table.ELSEWHERE, *table.NEVER, table.SERVED], command) is None


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_it_could_be_typed(command: Command) -> None:
    assert options.fault(command.text) is None


@pytest.mark.parametrize("command", named(), ids=str)
def test_what_a_sentence_names_could_be_typed(command: Command) -> None:
    assert options.fault(command.text) is None


@pytest.mark.parametrize(
    "text",
    [
        "rjepa strem recording a.csv",
        "rjepa stream recroding a.csv",
        "rjepa stream recording a.csv --px-per-degre 3",
        "rjepa stream ... --piar FILE",
        "rjepa stream neon --detector=tracked",
        "rjepa serve --gates two_point",
        "rjepa experiment wold",
        "rjepa keys make",
        "docker compose --profile gpus up",
        "docker compose up workers",
        "pip install '.[serve]'",
        "make demos",
        "python -m clients.detections_table",
        "python -m clients.detection_table --wriet",
    ],
)
def test_what_could_not_be_typed_is_found(text: str) -> None:
    assert options.fault(text) is not None


def test_every_flag_named_is_one() -> None:
    known = options.every_flag() | OF_OTHERS
    assert [(page, flag) for page, flag in flags() if flag not in known] == []


def test_every_option_is_told() -> None:
    """Of every command, somewhere in the pages; of two that undo each other, one."""
    told = set(re.findall(r"(?<![\w-])--[a-z](?:[a-z-]*[a-z])?", "".join(texts().values()))) | {"--help"}
    told |= {flag.replace("--", "--no-", 1) for flag in told} | {flag.replace("--no-", "--", 1) for flag in told}
    assert {command: options.flags_of(command) - told for command in options.every_command()} == {
        command: set() for command in options.every_command()
    }


@pytest.mark.parametrize("pattern", [*table.RUN, *table.ELSEWHERE, *table.NEVER, table.SERVED])
def test_the_table_names_nothing_that_is_told_no_more(pattern: str) -> None:
    assert any(fnmatch(command.text, pattern) for command in COMMANDS)


@pytest.mark.parametrize("text", table.LIVE)
def test_what_waits_for_a_stream_is_told(text: str) -> None:
    assert any(text in block.text for language in PROGRAMS for block in blocks(language))


@pytest.mark.parametrize("test", sorted(set(table.ELSEWHERE.values())))
def test_the_test_that_runs_it_exists(test: str) -> None:
    assert exists(test)


def test_make_demo_is_the_command_that_is_tested() -> None:
    told = subprocess.run(
        ["make", "--no-print-directory", "-n", "-o", ".venv/.demo", "demo", "ARGS=--exit"],
        cwd=options.ROOT, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert told.stdout.splitlines()[-1] == ".venv/bin/rjepa demo --exit"


@pytest.mark.parametrize("command", [command for command in COMMANDS if _run_here(command)], ids=str)
def test_it_runs(lab: Lab, command: Command) -> None:
    pattern = _found(list(table.RUN), command)
    how = table.AS_IT_STANDS if pattern is None else table.RUN[pattern]
    words = command.words
    if words[0] == "curl":
        _needed("curl")
        words = [words[0], "--silent", "--show-error", "--fail-with-body", *words[1:]]
    if how.until is not None:
        assert lab.run_until(words, how) == how.code
        return
    done = lab.run(words, how)
    assert done.returncode == how.code, f"{done.stdout[-1000:]}\n{done.stderr[-3000:]}"
    assert done.stdout or done.stderr or words[0] == "curl", "it says something"


PROGRAMS = {
    "python": [sys.executable, "{file}"],
    "r": ["Rscript", "{file}"],
    "matlab": ["octave-cli", "--no-gui", "--quiet", "{file}"],
}
OPTIONAL = {"octave-cli"}
"""Not even in CI: 125 packages."""


def _needed(program: str) -> None:
    if shutil.which(program) is not None:
        return
    if os.environ.get("CI") and program not in OPTIONAL:
        pytest.fail(f"{program} is needed in CI")
    pytest.skip(f"{program} is not on this machine")


@pytest.mark.parametrize("block", [block for language in PROGRAMS for block in blocks(language)], ids=str)
def test_the_program_runs(lab: Lab, block: Block) -> None:
    """As it stands, but for the addresses: each in a process of its own."""
    file = lab.folder / f"program_{block.page.replace('/', '_').removesuffix('.md')}_{block.line}.{block.language[0]}"
    file.write_text(lab.here(block.text))
    words = [word.format(file=file) for word in PROGRAMS[block.language]]
    _needed(words[0])
    stream = next((name for text, name in table.LIVE.items() if text in block.text), None)
    with lab.live(stream):
        done = subprocess.run(
            words, cwd=lab.folder, env=lab.env, capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
    assert done.returncode == 0, f"{done.stdout[-1000:]}\n{done.stderr[-3000:]}"
    assert "Warning" not in done.stderr, done.stderr


def test_every_block_has_a_language_that_is_looked_after() -> None:
    known = {"sh", "text", "yaml", "toml", "json", *PROGRAMS}
    for page, text in blocks_by_language():
        assert text in known, f"{page}: a block in {text or 'no language'}"


def blocks_by_language() -> list[tuple[str, str]]:
    """(page, language) of every opening fence."""
    found = []
    for page, text in texts().items():
        fences = [line for line in text.splitlines() if line.startswith("```")]
        found += [(page, fence[3:]) for fence in fences[::2]]
    return found
