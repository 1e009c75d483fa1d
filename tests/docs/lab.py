"""The lab of the pages: a folder with a film and a recording, and ``rjepa serve`` on it, begun as the pages say."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import httpx
import numpy as np

from model.config import ModelConfig
from model.weights import load_weights, parse_weights
from service.experiment_rows import digest
from tests.docs.table import AS_IT_STANDS, How
from tests.helpers import ROOT, Running, environment, free_port, wait_until

LIMIT_S = 170.0


@dataclass
class Lab:
    """A folder, the addresses of what is served there, and an environment that keeps all else in it."""

    folder: Path
    ingest: str
    publish: str
    http: str
    env: dict[str, str]

    def here(self, text: str) -> str:
        """``text`` with the addresses of the pages as they are here."""
        ours = {"tcp://127.0.0.1:5555": self.ingest, "tcp://127.0.0.1:5556": self.publish}
        for told, real in {**ours, "http://127.0.0.1:8000": self.http}.items():
            text = text.replace(told, real)
        return text

    def words(self, words: Sequence[str], how: How = AS_IT_STANDS) -> list[str]:
        """A command as it is run here."""
        told = [self.here(word) for word in words]
        for old, new in how.instead.items():
            told = [word.replace(old, new) for word in told]
        program = [sys.executable, "-m", "rjepa"] if told[0] == "rjepa" else told[:1]
        return [*program, *told[1:], *how.more]

    def run(self, words: Sequence[str], how: How = AS_IT_STANDS) -> subprocess.CompletedProcess[str]:
        """Run one command to its end."""
        return subprocess.run(
            self.words(words, how), cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=LIMIT_S,
            check=False,
        )  # fmt: skip

    @contextmanager
    def started(self, words: Sequence[str], how: How = AS_IT_STANDS) -> Iterator[Running]:
        """A running command, its output in files; killed at the end."""
        number = len(list(self.folder.glob("*.err")))
        out, err = self.folder / f"{number}.out", self.folder / f"{number}.err"
        with out.open("wb") as out_file, err.open("wb") as err_file:
            process = subprocess.Popen(
                self.words(words, how), cwd=self.folder, env=self.env, stdin=subprocess.DEVNULL,
                stdout=out_file, stderr=err_file, start_new_session=True,
            )  # fmt: skip
        running = Running(process, out, err)
        try:
            yield running
        finally:
            running.kill()

    def run_until(self, words: Sequence[str], how: How) -> int:
        """Run a command without an end, until something of its stream is learned; then Ctrl-C. Its exit code."""
        assert how.until is not None
        with self.started(words, how) as running:
            self._wait_for(how.until)
            running.process.send_signal(signal.SIGINT)
            return running.wait(LIMIT_S)

    @contextmanager
    def live(self, stream: str | None) -> Iterator[None]:
        """An observer looks about, as ``stream``, until this is left; nobody where that is None."""
        if stream is None:
            yield
            return
        with self.started(["rjepa", "stream", "simulated", "scene.mp4", "--loop", "--stream", stream]) as observer:
            self._wait_for(stream)
            yield
            observer.process.send_signal(signal.SIGINT)
            assert observer.wait(LIMIT_S) == 0, observer.stderr()[-3000:]

    def _wait_for(self, stream: str) -> None:
        def learned() -> bool:
            told = httpx.get(f"{self.http}/v1/streams/{stream}", timeout=30)
            return told.status_code == 200 and told.json()["learned"] > 0

        wait_until(learned, LIMIT_S, f"something of {stream}")


@contextmanager
def open_lab(folder: Path, made_directory: Path, serve: Sequence[str], first: Sequence[str]) -> Iterator[Lab]:
    """A lab in which ``serve`` runs on session-1, and ``first``, a recording into it, is done."""
    for name in ("session-1", "session-2"):
        shutil.copytree(made_directory, folder / name)
    _calibrated(made_directory, folder / "cache" / "rjepa" / "experiments")
    a_recording(folder)
    (folder / "backups").mkdir()
    ingest, publish, http = (f"127.0.0.1:{free_port()}" for _ in range(3))
    env = environment(
        {
            "PYTHONPATH": str(ROOT),
            "MPLBACKEND": "Agg",
            "RJEPA_INGEST": f"tcp://{ingest}",
            "RJEPA_PUBLISH": f"tcp://{publish}",
            "RJEPA_HTTP": http,
            "XDG_CACHE_HOME": str(folder / "cache"),
            "XDG_STATE_HOME": str(folder / "state"),
        }
    )
    lab = Lab(folder, f"tcp://{ingest}", f"tcp://{publish}", f"http://{http}", env)
    with lab.started(serve) as serving:

        def ready() -> bool:
            assert serving.alive(), serving.stderr()[-3000:]
            return "ready" in serving.stdout()

        wait_until(ready, LIMIT_S, "rjepa serve")
        done = lab.run(first, How(more=("--speed", "max")))
        assert done.returncode == 0, done.stderr[-3000:]
        yield lab
        assert serving.alive(), serving.stderr()[-3000:]
        assert serving.terminate(60) == 0, serving.stderr()[-3000:]


def _calibrated(made_directory: Path, cache: Path) -> None:
    """Whitening for random weights, as ``rjepa.features`` keeps it: made once for all tests."""
    cache.mkdir(parents=True)
    retina = digest(ModelConfig.preset("default").retina.model_dump(mode="json"))
    known = digest([retina, load_weights(parse_weights("random"), seed=0).digest, 0])
    shutil.copy(made_directory / "calibration.safetensors", cache / f"calibration-{known}.safetensors")


def a_recording(folder: Path, name: str = "scene", gaze: str = "gaze", seconds: float = 8.0) -> None:
    """``name``.mp4, a drifting field of colours (640 x 480), and ``gaze``.csv: 200 ms at a place, then the next."""
    rng = np.random.default_rng(2)
    wide = cv2.resize(rng.integers(0, 255, (24, 48, 3), dtype=np.uint8), (1600, 800), interpolation=cv2.INTER_CUBIC)
    writer = cv2.VideoWriter(str(folder / f"{name}.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 25.0, (640, 480))
    assert writer.isOpened()
    for frame in range(int(25 * seconds)):
        writer.write(wide[frame : frame + 480, 4 * frame : 4 * frame + 640])
    writer.release()
    lines = ["timestamp [ms],x [px],y [px]"]
    for place in range(int(seconds / 0.2)):
        x, y = rng.uniform(90, 550), rng.uniform(90, 390)
        for sample in range(50):
            noise = rng.normal(0, 0.2, 2)
            lines.append(f"{200 * place + 4 * sample},{x + noise[0]:.2f},{y + noise[1]:.2f}")
    (folder / f"{gaze}.csv").write_text("\n".join(lines) + "\n")
