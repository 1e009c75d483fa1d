"""Runs the code cells of a notebook in order, as Jupyter would: ``python run_notebook.py FILE``; in its own process.

Each cell's last expression is shown. Anything but plain Python (magics, shell lines) is an error here.
"""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path
from typing import Any


def run(path: Path, replaced: dict[str, str]) -> None:
    """Run every code cell; ``replaced``: lines of it, by what stands instead."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(json.loads(path.read_text())["cells"]):
        if cell["cell_type"] != "code":
            continue
        source = "".join(cell["source"])
        for old, new in replaced.items():
            source = source.replace(old, new)
        tree = ast.parse(source, f"cell {number}")
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, f"cell {number}", "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), names)
            if value is not None:
                print(repr(value))


if __name__ == "__main__":
    run(Path(sys.argv[1]), json.loads(sys.argv[2]) if len(sys.argv) > 2 else {})
