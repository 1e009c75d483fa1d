"""``rjepa demo``: serve, and a simulated observer who looks about a sample video, on one machine in one command.

Both are the public commands, as processes of their own: ``rjepa serve --weights random`` and ``rjepa stream
simulated sample``. This file only starts them, reads the HTTP interface like any other reader, and tells.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, CliApp, SettingsConfigDict, SettingsError
from tqdm import tqdm

from service.errors import ServiceError

READY_LIMIT_S = 300.0
STOP_LIMIT_S = 20.0
STREAM = "demo"

WHAT_RANDOM_MEANS = """\
The retina has RANDOM weights: no pretrained network is downloaded. Its features are those of an untrained
ResNet-50, whitened on synthetic pictures. Learning, storage and every number are real; what a trained retina
would see is not shown. A lab gives its own: rjepa serve --weights simsiam=CHECKPOINT"""


class DemoError(ServiceError):
    """The demonstration could not go on."""

    code = "demo_failed"
    exit_code = 1


class DemoSettings(BaseSettings):
    """Options of ``rjepa demo``."""

    model_config = SettingsConfigDict(
        extra="forbid",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        use_attribute_docstrings=True,
        cli_prog_name="rjepa demo",
    )

    data_dir: Path = Path("rjepa-demo")
    """Where what is learned is kept; a second demonstration goes on from there."""
    ingest: str = "tcp://127.0.0.1:5555"
    """Address for fixations."""
    publish: str = "tcp://127.0.0.1:5556"
    """Address records are published on."""
    http: str = "127.0.0.1:8000"
    """HOST:PORT of the HTTP interface."""
    fixations: Annotated[int, Field(ge=1)] | None = None
    """How many fixations to look for; without it, until Ctrl-C."""
    speed: str = "1"
    """1 is real pace (about 4 fixations a second); N times that, or max."""
    exit: bool = False
    """End by itself after --fixations, with a summary."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the learner and of the observer."""


def main(argv: list[str]) -> int:
    """Run the demonstration; 0 when everything sent was learned."""
    settings = _settings(argv)
    stop = threading.Event()
    _stop_on_signals(stop)
    print(WHAT_RANDOM_MEANS, flush=True)
    print(
        f"\nStarting (a new data directory, here {settings.data_dir}, is calibrated once: under a minute) ...",
        flush=True,
    )
    with _child("serve", *_serve_words(settings)) as serve:
        base = f"http://{settings.http}"
        _wait_ready(base, serve, stop)
        if stop.is_set():
            return 0
        print(f"\n  {base}/    the dashboard: look on while it learns\n", flush=True)
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        log = settings.data_dir / "demo-stream.log"
        with log.open("wb") as log_file, _child("stream", *_stream_words(settings), stderr=log_file) as client:
            _watch(base, settings, client, stop)
            if client.poll() is None:
                _end(client)
            elif client.returncode != 0 and not stop.is_set():
                raise DemoError(f"the observer ended with {client.returncode}: {_last_line(log)} (all of it: {log})")
        _summary(base, settings)
        if not settings.exit and not stop.is_set():
            print(f"Still serving {base}/ ; Ctrl-C ends it.", flush=True)
            while not stop.wait(0.5):
                if serve.poll() is not None:
                    raise DemoError(f"rjepa serve ended by itself with {serve.returncode}")
        code = _end(serve)
    if code != 0:
        raise DemoError(f"rjepa serve ended with {code}")
    return 0


def _settings(argv: list[str]) -> DemoSettings:
    try:
        settings = CliApp.run(DemoSettings, cli_args=argv)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = "-".join(str(part) for part in first["loc"]).replace("_", "-")
        raise DemoUsageError(f"--{where}: {first['msg']}") from None
    except SettingsError as error:
        raise DemoUsageError(str(error)) from None
    if settings.exit and settings.fixations is None:
        raise DemoUsageError("--exit needs --fixations N: when should it end?")
    return settings


class DemoUsageError(DemoError):
    """The demonstration was asked for something it can't do."""

    code = "usage"
    exit_code = 2


def _serve_words(settings: DemoSettings) -> list[str]:
    return [
        "--weights=random",
        f"--seed={settings.seed}",
        f"--data-dir={settings.data_dir}",
        f"--ingest={settings.ingest}",
        f"--publish={settings.publish}",
        f"--http={settings.http}",
    ]


def _stream_words(settings: DemoSettings) -> list[str]:
    words = ["simulated", "sample", f"--ingest={settings.ingest}", f"--stream={STREAM}"]
    words += [f"--speed={settings.speed}", f"--seed={settings.seed}", f"--spool={settings.data_dir / 'demo-spool'}"]
    words += ["--loop"] if settings.fixations is None else [f"--fixations={settings.fixations}"]
    return words


@contextmanager
def _child(*words: str, stderr: Any = None) -> Iterator[subprocess.Popen[bytes]]:
    """A ``rjepa`` process that ends with this block."""
    process = subprocess.Popen([sys.executable, "-m", "rjepa", *words], stdin=subprocess.DEVNULL, stderr=stderr)
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> int:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()


def _stop_on_signals(stop: threading.Event) -> None:
    def set_stop(number: int, frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGINT, set_stop)
    signal.signal(signal.SIGTERM, set_stop)


def _get(url: str, limit_s: float = 10.0) -> Any:
    with urllib.request.urlopen(url, timeout=limit_s) as answer:
        return json.loads(answer.read())


def _wait_ready(base: str, serve: subprocess.Popen[bytes], stop: threading.Event) -> None:
    end = time.monotonic() + READY_LIMIT_S
    while not stop.is_set():
        if serve.poll() is not None:
            raise DemoError(f"rjepa serve ended with {serve.returncode}; its last words are above")
        try:
            _get(f"{base}/readyz")
            return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            if time.monotonic() > end:
                raise DemoError(f"not ready after {READY_LIMIT_S:.0f} s") from None
        stop.wait(0.25)


def _watch(base: str, settings: DemoSettings, client: subprocess.Popen[bytes], stop: threading.Event) -> None:
    """Show fixations learned and the present error until the observer has ended or someone stops it."""
    before = _learned(base)
    with tqdm(total=settings.fixations, unit=" fixations", desc="learned", mininterval=0.5) as bar:
        while not stop.is_set():
            over = client.poll() is not None
            stream = _stream(base)
            if stream is not None:
                bar.update(max(0, stream["learned_seq"] + 1 - before - bar.n))
                error = stream.get("last_error")
                bar.set_postfix_str("no error yet" if error is None else f"error {error:.4f}")
            if over:
                return
            stop.wait(0.5)


def _stream(base: str) -> dict[str, Any] | None:
    try:
        answer: dict[str, Any] = _get(f"{base}/v1/streams/{STREAM}")
        return answer
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise DemoError(f"{base}/v1/streams/{STREAM}: {error.code}") from None


def _learned(base: str) -> int:
    stream = _stream(base)
    return 0 if stream is None else int(stream["learned_seq"]) + 1


def _summary(base: str, settings: DemoSettings) -> None:
    """What was learned and stored, in words."""
    stream = _stream(base)
    if stream is None:
        print("Nothing was learned.", flush=True)
        return
    records = _records(base, max(-1, int(stream["learned_seq"]) - (settings.fixations or 10_000)))
    model = _get(f"{base}/v1/model")
    errors = [r for r in records if r["prediction_error"] is not None]
    print(f"\nStream {STREAM!r}: {stream['next_seq']} fixations durable, {stream['learned']} learned,", end=" ")
    print(f"skipped: {stream['dropped'] or 'none'}")
    print(f"Model: {model['parameters']['total']} parameters, {model['gates']} gates, RFP exact: {model['rfp_exact']}")
    quarter = len(errors) // 4
    if quarter:
        for name, part in (("first", errors[:quarter]), ("last", errors[-quarter:])):
            trivial = _trivial(part)
            print(f"Error, {name} quarter of this run: {_mean(part):.4f}; best trivial predictor: {trivial}")
    print(f"Is it learning? {_verdict(base)}")
    size = sum(path.stat().st_size for path in settings.data_dir.rglob("*") if path.is_file())
    print(f"Stored in {settings.data_dir}: {size / 1e6:.1f} MB", flush=True)


def _verdict(base: str) -> str:
    """The word, and the skill with its interval; or why there is none."""
    try:
        found = _get(f"{base}/v1/diagnostics/representation?stream={STREAM}", limit_s=60.0)
    except urllib.error.HTTPError as error:
        return f"not told: {json.loads(error.read())['detail']}"
    return f"{found['verdict']}: {found['why']}"


def _records(base: str, after: int) -> list[dict[str, Any]]:
    answer: list[dict[str, Any]] = _get(f"{base}/v1/streams/{STREAM}/records?after={after}&limit=10000")["records"]
    return answer


def _mean(records: list[dict[str, Any]]) -> float:
    return sum(float(r["prediction_error"]) for r in records) / len(records)


def _trivial(records: list[dict[str, Any]]) -> str:
    """The best single trivial predictor over these records: its mean error and its name."""
    sums: dict[str, list[float]] = {}
    for record in records:
        for name, error in record["trivial_error"].items():
            if error is not None:
                sums.setdefault(name, []).append(float(error))
    means = {name: sum(e) / len(e) for name, e in sums.items() if len(e) == len(records)}
    if not means:
        return "none yet"
    best = min(means, key=lambda name: means[name])
    return f"{means[best]:.4f} ({best})"


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").replace("\r", "\n").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
