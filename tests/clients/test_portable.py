"""The clients run where a lab's tracker runs: without torch, without POSIX, on Python 3.10 and later."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import rjepa
from tests.helpers import ROOT

CLIENTS = sorted((ROOT / "clients").rglob("*.py"))
MODULES = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in CLIENTS if path.stem != "__init__"]
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.py"))
NO_PART_OF_A_CLIENT = ["torch", "torchvision", "model", "service", "fastapi", "uvicorn", "safetensors"]
POSIX_ONLY = ["fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "crypt", "nis", "readline"]
NOT_HERE = NO_PART_OF_A_CLIENT + POSIX_ONLY
NOT_ON_WINDOWS = {
    "os": {
        "fork",
        "forkpty",
        "killpg",
        "getpgid",
        "setsid",
        "getuid",
        "geteuid",
        "fchmod",
        "chown",
        "mkfifo",
        "O_DIRECT",
    },
    "signal": {"SIGKILL", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGCHLD", "SIGALRM", "alarm", "pause", "setitimer"},
    "socket": {"AF_UNIX"},
    "select": {"poll", "epoll"},
}


def run(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_module_imports_with_the_others_blocked() -> None:
    run(
        f"import sys, importlib\nfor name in {NOT_HERE!r}: sys.modules[name] = None\n"
        f"for name in {MODULES!r}: importlib.import_module(name)"
    )


def test_nothing_is_imported_that_is_not_there_on_windows() -> None:
    """Python's own modules that only POSIX has come in through others where they are there; not through ours."""
    for path in CLIENTS:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not {name.split(".")[0] for name in names} & set(NOT_HERE), path.name
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert node.attr not in NOT_ON_WINDOWS.get(node.value.id, set()), f"{path.name}: {ast.unparse(node)}"


@pytest.mark.parametrize(
    "words",
    [
        ["doctor", "--help"],
        ["stream", "--help"],
        *(["stream", kind, "--help"] for kind in ("recording", "simulated", "pupil-core", "lsl", "neon", "camera")),
    ],
)
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    script = (
        "import sys\nfrom rjepa import main\n"
        f"try: main({words!r})\nexcept SystemExit: pass\n"
        "print('loaded:', *[name for name in ('cv2', 'scipy', 'numpy', 'zmq', 'torch') if name in sys.modules])"
    )
    assert run(script).splitlines()[-1].split() == ["loaded:"]


def test_the_sources_are_python_3_10() -> None:
    for path in [*CLIENTS, *EXAMPLES, ROOT / "rjepa.py"]:
        ast.parse(path.read_text(), feature_version=(3, 10))


@pytest.mark.parametrize("name", [name for name, room in rjepa._EXPORTS.items() if room.startswith("clients.")])
def test_names_from_the_front_door(name: str) -> None:
    """Each is what it says, and comes without anything of the learning machine."""
    blocked = f"import sys\nfor module in {NOT_HERE!r}: sys.modules[module] = None\n"
    told = run(f"{blocked}from rjepa import {name}\nprint({name}.__name__)")
    assert told.split() == [name]


def test_the_modules_are_all_of_them() -> None:
    """In the wheel too: setuptools is told the packages by name."""
    pyproject = (ROOT / "pyproject.toml").read_text()
    for path in (ROOT / "clients").rglob("*.py"):
        package = ".".join(path.parent.relative_to(ROOT).parts)
        assert f'"{package}"' in pyproject, f"{package} is not in the wheel"


def test_a_source_can_be_used_from_a_path_with_spaces(tmp_path: Path) -> None:
    """Windows has them everywhere."""
    from clients.spool import Spool

    Spool(tmp_path / "Program Files" / "spöol", "s1").close()
    assert (tmp_path / "Program Files" / "spöol" / "spool.db").exists()


def test_a_command_without_its_extra_says_which(tmp_path: Path) -> None:
    """Also where what is missing is imported late, long after the command's own module."""
    told = run(
        f"import contextlib, io, sys\nfor name in {NO_PART_OF_A_CLIENT[:2]!r}: sys.modules[name] = None\nimport rjepa\n"
        "with contextlib.redirect_stderr(io.StringIO()) as told:\n"
        f"    code = rjepa.main(['worker', '--weights=random', '--data-dir={tmp_path}'])\n"
        "print(code, told.getvalue())"
    )
    assert told.strip() == "1 rjepa worker: torch is not installed; pip install 'rjepa[service]'"
