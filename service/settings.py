"""Every setting of ``serve``, ``worker`` and ``api``, declared once.

Flags, environment variables (``RJEPA_`` and the name in capitals) and the keys of a TOML file given by
``--config`` all come from the fields below; a flag goes before the environment, that before the file. A
wrong key is an error in each of the three.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from service.errors import SettingsError

ENV_PREFIX = "RJEPA_"
WEIGHTS_HELP = "simsiam=PATH | torchvision=NAME | file=PATH | random"


class Settings(BaseSettings):
    """What the worker and the HTTP interface are told."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        cli_kebab_case=True,
        cli_avoid_json=True,
        cli_hide_none_type=True,
        cli_implicit_flags=True,
        use_attribute_docstrings=True,
    )

    data_dir: Path = Path("rjepa-data")
    """Where journal, checkpoints and calibration live; made if it is not there."""
    ingest: str = "tcp://127.0.0.1:5555"
    """Address the worker takes fixations on (ZeroMQ ROUTER)."""
    publish: str = "tcp://127.0.0.1:5556"
    """Address the worker publishes records on (ZeroMQ PUB)."""
    http: str = "127.0.0.1:8000"
    """HOST:PORT of the HTTP interface."""
    weights: str | None = None
    """The retina's weights: simsiam=PATH | torchvision=NAME | file=PATH | random. No default: a choice to be made."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where the retina and the learner compute."""
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    """Seed of everything random: the learner's start, random weights, synthetic patches."""
    preset: Literal["default", "long", "paper"] = "default"
    """The learner's configuration by name."""
    gates: Literal["two-point", "modular", "dense"] | None = None
    """Connectivity of the gates; without it, the preset's."""
    calibrate: str = "synthetic"
    """What a new model's whitening is fitted on: synthetic, or the PATH of a video or a folder of videos or pictures."""
    checkpoint_every: Annotated[float, Field(ge=1.0)] = 60.0
    """Seconds between checkpoints."""
    keep_checkpoints: Annotated[int, Field(ge=2)] = 5
    """How many unpinned checkpoints stay, besides one an hour."""
    threads: Annotated[int, Field(ge=1, le=64)] | None = None
    """Threads of one torch operation; fixed when the data directory is made (then: cores, at most 4)."""
    lag_limit: Annotated[int, Field(ge=1)] = 240
    """Fixations waiting to be learned above which readyz says no."""
    publish_embeddings: bool = False
    """Put the embedding into every published record."""
    access_dir: Path | None = None
    """Folder of CURVE keys and tokens; without it, DATA_DIR/access. What lies there is in force."""
    allowed_hosts: str = "localhost,127.0.0.1,[::1]"
    """Host headers the HTTP interface answers, separated by commas."""
    log_json: bool = False
    """Log as one JSON object a line."""

    @field_validator("ingest", "publish")
    @classmethod
    def _tcp(cls, value: str) -> str:
        host, _, port = value.removeprefix("tcp://").rpartition(":")
        if not value.startswith("tcp://") or not host or not port.isdigit() or int(port) > 65535:
            raise ValueError(f"{value!r} is no address like tcp://127.0.0.1:5555")
        return value

    @field_validator("http")
    @classmethod
    def _host_port(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        if not host or not port.isdigit() or int(port) > 65535:
            raise ValueError(f"{value!r} is no HOST:PORT like 127.0.0.1:8000")
        return value

    @property
    def access_folder(self) -> Path:
        """Folder of CURVE keys and tokens."""
        return self.access_dir if self.access_dir is not None else self.data_dir / "access"


def load_settings(argv: list[str], command: str) -> Settings:
    """The settings of ``rjepa <command> <argv>``.

    Raises :class:`SettingsError` (one line: which key, what was wrong) for a wrong key or value from any
    source. ``--help`` prints the options and exits.
    """
    raise NotImplementedError


_ = (os, CliSettingsSource, PydanticBaseSettingsSource, TomlConfigSettingsSource, SettingsError)
