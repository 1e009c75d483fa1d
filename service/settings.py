"""Every setting of ``serve``, ``worker`` and ``api``, declared once.

Flags, environment variables (``RJEPA_`` and the name in capitals) and the keys of a TOML file given by
``--config`` all come from the fields below; a flag goes before the environment, that before the file. A
wrong key is an error in each of the three.
"""

from __future__ import annotations

import argparse
import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from service.errors import SettingsError

ENV_PREFIX = "RJEPA_"
OTHER_PREFIXES = ("RJEPA_STREAM_", "RJEPA_SPOOL", "RJEPA_TEST_", "RJEPA_BUILD_")
"""Environment variables of the clients, the tests and the images: not settings of ours, left alone."""
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
    dense_step: Literal["torch", "compiled"] = "torch"
    """What a step of dense gates is computed with: torch, or compiled, which needs `pip install 'rjepa[fast]'`."""
    calibrate: str = "synthetic"
    """What a new model's whitening is fitted on: synthetic, or PATH, a video or a folder of videos or pictures."""
    checkpoint_every: Annotated[float, Field(ge=1.0)] = 60.0
    """Seconds between checkpoints."""
    keep_checkpoints: Annotated[int, Field(ge=2)] = 5
    """How many unpinned checkpoints stay, besides one an hour."""
    keep_hourly_checkpoints: Annotated[int, Field(ge=0)] = 168
    """Of so many hours in which checkpoints were written the first stays."""
    keep_patches_days: Annotated[float, Field(ge=0.0)] = 30.0
    """Patches older than this are dropped; records, features and digests stay."""
    keep_patches_gb: Annotated[float, Field(ge=0.0)] = 20.0
    """So much may all kept patches take (1 GB is 1e9 bytes; 8 days at 4 fixations/s); the oldest go first."""
    threads: Annotated[int, Field(ge=1, le=64)] | None = None
    """Threads of one operation of the retina; fixed when the data directory is made (then: cores, at most 4)."""
    engine: Literal["packed", "plain", "openvino"] | None = None
    """Who computes the retina; fixed when the data directory is made (then: packed). openvino, faster on a CPU, needs
    `pip install 'rjepa[openvino]'`; plain is torch's own way."""
    precision: Literal["float32", "bfloat16"] | None = None
    """What numbers the retina computes with; fixed when the data directory is made (then: float32). bfloat16 is faster
    where the processor or the device has it, and its features are coarser."""
    lag_limit: Annotated[int, Field(ge=1)] = 240
    """Fixations waiting to be learned above which readyz says no, and the alarm lag is on."""
    disk_low_gb: Annotated[float, Field(ge=0.0)] = 2.0
    """With less room than this on the disk of the data directory the alarm disk_low is on."""
    idle_after: Annotated[float, Field(ge=1.0)] = 60.0
    """Seconds without a fixation after which the alarm stream_idle of a stream is on."""
    diagnostics: bool = True
    """Measure while learning whether it is real (--no-diagnostics: don't): windows, /v1/diagnostics, alarms."""
    publish_embeddings: bool = False
    """Put the embedding into every published record."""
    access_dir: Path | None = None
    """Folder of CURVE keys and tokens; without it, DATA_DIR/access. What lies there is in force."""
    allowed_hosts: str = "localhost,127.0.0.1,[::1]"
    """Host headers the HTTP interface answers, separated by commas."""
    request_rate: Annotated[float, Field(gt=0.0)] = 500.0
    """Requests a second one client address may make over HTTP, 10 s worth of them at once; above, 429."""
    http_connections: Annotated[int, Field(ge=1)] = 512
    """Connections the HTTP interface holds at a time; one more is told 503."""
    event_streams: Annotated[int, Field(ge=1)] = 256
    """Event streams the HTTP interface serves at a time; one more is told 503. Each holds a connection too."""
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

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Nothing is read behind the caller's back: :func:`load_settings` merges the sources."""
        return (init_settings,)

    @property
    def access_folder(self) -> Path:
        """Folder of CURVE keys and tokens."""
        return self.access_dir if self.access_dir is not None else self.data_dir / "access"


def load_settings(argv: list[str], command: str) -> Settings:
    """The settings of ``rjepa <command> <argv>``.

    Raises :class:`SettingsError` (one line: which key, what was wrong) for a wrong key or value from any
    source. ``--help`` prints the options and exits.
    """
    parser = _Parser(
        prog=f"rjepa {command}",
        allow_abbrev=False,
        epilog=f"Every option is also an environment variable ({ENV_PREFIX}DATA_DIR for --data-dir) and a key of the "
        "TOML file (data_dir); a flag goes before the environment, that before the file.",
    )
    parser.add_argument("--config", metavar="FILE", help="TOML file with settings by name")
    _refuse_unknown_environment(os.environ)
    flags = CliSettingsSource[argparse.ArgumentParser](Settings, root_parser=parser, cli_parse_args=argv)
    config = _config_file(argv)
    layers = {"option": dict(flags()), "environment": _environment(), "file": config}
    merged = layers["file"] | layers["environment"] | layers["option"]
    try:
        return Settings(**merged)
    except ValidationError as error:
        raise SettingsError(_explain(error, layers)) from None


def chosen_weights(settings: Settings) -> str:
    """The weights that were named. Raises :class:`SettingsError` with the choices where none were."""
    if settings.weights is None:
        raise SettingsError(
            f"--weights has no default; the choices are {WEIGHTS_HELP} (random: an untrained retina, for trying out)"
        )
    return settings.weights


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as an exception."""

    def error(self, message: str) -> NoReturn:
        raise SettingsError(f"{message}; see {self.prog} --help")


def _environment() -> dict[str, Any]:
    return dict(EnvSettingsSource(Settings, env_prefix=ENV_PREFIX, env_ignore_empty=True)())


def _refuse_unknown_environment(environment: Mapping[str, str]) -> None:
    known = {f"{ENV_PREFIX}{name}".upper() for name in (*Settings.model_fields, "config")}
    for name in sorted(environment):
        if not name.upper().startswith(ENV_PREFIX) or name.upper() in known:
            continue
        if not name.upper().startswith(OTHER_PREFIXES):
            close = difflib.get_close_matches(name.upper(), known, n=1)
            raise SettingsError(
                f"environment variable {name} is no setting{f', did you mean {close[0]}' if close else ''}; "
                "unset it or see --help for the names"
            )


def _config_file(argv: list[str]) -> dict[str, Any]:
    """What the TOML file says; nothing where none is named."""
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--config", default=os.environ.get(f"{ENV_PREFIX}CONFIG"))
    named = finder.parse_known_args(argv)[0].config
    if not named:
        return {}
    path = Path(named)
    if not path.is_file():
        raise SettingsError(f"--config {path}: no such file")
    try:
        found: dict[str, Any] = TomlConfigSettingsSource(Settings, toml_file=path).toml_data
    except (ValueError, OSError) as error:
        raise SettingsError(f"--config {path}: not readable as TOML: {error}") from None
    for name in found:
        if name not in Settings.model_fields:
            close = difflib.get_close_matches(name, Settings.model_fields, n=1)
            hint = f", did you mean {close[0]}" if close else ""
            raise SettingsError(f"--config {path}: {name} is no setting{hint}; see --help for the names")
    return found


def _explain(error: ValidationError, layers: dict[str, dict[str, Any]]) -> str:
    first = error.errors(include_url=False)[0]
    name = str(first["loc"][0]) if first["loc"] else "settings"
    source = next((source for source, values in layers.items() if name in values), "option")
    spelled = {
        "option": f"--{name.replace('_', '-')}",
        "environment": f"environment variable {ENV_PREFIX}{name.upper()}",
        "file": f"key {name} of the file named by --config",
    }[source]
    return f"{spelled}: {first['msg'].removeprefix('Value error, ')} (got {str(first['input'])[:80]!r})"
