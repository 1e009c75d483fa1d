"""What every benchmark keeps beside its numbers: the command, the date, the machine."""

from __future__ import annotations

import os
import platform
from datetime import datetime, timezone
from typing import Any

import torch

Found = dict[str, Any]
"""What a benchmark found, JSON-able."""


def record(name: str, command: str, found: Found, *, device: str = "cpu") -> Found:
    """``found`` with where and when it was found, the model on ``device``."""
    return {"bench": name, "command": command, "date": today(), "device": device, "machine": machine(), **found}


def today() -> str:
    """The date of the measurement, UTC."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%d")


def machine() -> dict[str, Any]:
    """What speed depends on: cores, threads, versions, and the graphics card where there is one. No names of hosts."""
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "memory_gb": _memory_gb(),
        "platform": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
    }


def machine_told(found: Found) -> str:
    """One line for a page: when, and on what. A graphics card is named where the model was on it."""
    has = found["machine"]
    gpu = "no GPU"
    if has["gpu"]:
        gpu = f"on {has['gpu']}" if found.get("device") == "cuda" else "its GPU not used"
    threads, cores = (f"{has[what]} {what[:-1]}" + ("" if has[what] == 1 else "s") for what in ("threads", "cores"))
    return (
        f"{found['date']}, {cores} ({has['vectors']}), {threads} of torch {has['torch']}, "
        f"Python {has['python']}, {has['platform']}, {gpu}"
    )


def _memory_gb() -> float | None:
    """Of the machine; None where the system does not tell."""
    if not hasattr(os, "sysconf"):
        return None
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
