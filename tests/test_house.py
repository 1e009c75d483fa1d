"""The house itself: who may know whom, how long a file and a function may be, no pickle, no swallowed error."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT

ROOMS = ("clients", "model", "service")
SOURCES = [*sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py")), ROOT / "rjepa.py"]
MAY_KNOW = {
    "clients": {"clients"},
    "model": {"model"},
    "service": {"service", "model", "clients.wire", "clients"},
    "rjepa.py": {"clients", "model", "service"},
}
FORBIDDEN = {
    "clients": {"torch", "torchvision", "fastapi", "uvicorn", "fcntl", "resource", "pwd", "termios"},
    "model": {"zmq", "fastapi", "uvicorn", "sqlite3", "socket", "subprocess", "cv2"},
}
KNOWS_CLIENTS = {"service/offline.py"}
"""The one file of service that may read the clients' sources; the others know their wire alone."""


def imported(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_who_may_know_whom(path: Path) -> None:
    room, name = room_of(path), str(path.relative_to(ROOT))
    for module in imported(path):
        top = module.split(".")[0]
        assert top not in FORBIDDEN.get(room, set()), f"{name} imports {module}"
        if top in ROOMS:
            assert top in MAY_KNOW[room], f"{name} imports {module}"
            if room == "service" and top == "clients" and name not in KNOWS_CLIENTS:
                assert module.startswith("clients.wire"), f"{name} imports {module}; only the wire is shared"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_sizes(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 400, f"{path.name} is longer than 400 lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= 70, f"{path.name}: {node.name} has {length} lines"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_pickle_and_no_swallowed_error(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            only = {k.arg: ast.unparse(k.value) for k in node.keywords}
            assert only.get("weights_only") == "True", f"{path.name}:{node.lineno} loads pickles"
        if isinstance(node, ast.ExceptHandler):
            names = ast.unparse(node.type) if node.type else "everything"
            broad = names in ("Exception", "BaseException", "everything")
            empty = all(isinstance(statement, ast.Pass) for statement in node.body)
            assert not (broad and empty), f"{path.name}:{node.lineno} swallows {names}"
    modules = imported(path) - {"pickle.UnpicklingError"}  # what torch.load raises; it loads nothing
    assert not any(module.split(".")[0] in ("pickle", "shelve", "dill") for module in modules)


def test_the_front_door_imports_nothing_heavy() -> None:
    import subprocess

    script = "import rjepa, sys; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"torch", "cv2", "zmq", "numpy", "fastapi", "pydantic"} & set(done.stdout.split())
