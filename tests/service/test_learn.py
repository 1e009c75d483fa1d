"""`rjepa learn`: from journals and recordings, refused, stopped, killed, gone on with, and served from."""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rjepa
from clients.errors import ClientError, OptionError
from clients.settings import ReadingSettings
from model import snapshot as snapshots
from model.config import ModelConfig
from model.epochs import META
from model.learner import Learner
from model.weights import load_weights, parse_weights
from service import learn_cli
from service.control import ControlClient
from service.errors import DirectoryInUse, DirectoryRefused, LearnRefused, SettingsError
from service.experiment_rows import digest
from service.journal import Admitted, Journal
from service.learn_sources import JournalSource
from service.manifests import Folder
from service.offline import recorded, recordings_in
from tests.clients.made_recordings import PLACES, eyelink
from tests.helpers import fixation_body, free_port, patches, run_rjepa, start_rjepa, wait_until

CONFIG = ModelConfig.preset("default")


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """The command sets torch's threads, as a process of its own may."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def fill(data_dir: Path, count: int, *, stream: str = "anna", seed: int = 0, starts: tuple[int, ...] = ()) -> None:
    """So many fixations with their patches and features, as a worker leaves them."""
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((count, CONFIG.features)).astype(np.float32)
    seen = patches(count, seed)
    with closing(Journal(data_dir / "rjepa.db")) as journal:
        journal.claim(stream, 1, 0.0)
        first = journal.last_id() + 1
        journal.append([_admitted(stream, seq, seen[seq].tobytes(), start=seq in starts) for seq in range(count)])
        journal.put_features((first + seq, z[seq]) for seq in range(count))
        journal.put_meta("learned_id", str(journal.last_id()))


def _admitted(stream: str, seq: int, patch: bytes, *, start: bool = False) -> Admitted:
    body = fixation_body(stream, seq) | ({"sequence": {"id": f"t{seq}", "start": True}} if start else {})
    return Admitted(stream, seq, 0.0, json.dumps(body), bytes(32), patch, padded=False, frame_deg_assumed=True)


@pytest.fixture
def journal(data_dir: Path) -> Path:
    """A data directory with 260 fixations: 26 sequences of ten."""
    fill(data_dir, 260)
    return data_dir


def words(journal: Path, into: Path, *more: object) -> list[str]:
    common = ["--from", str(journal), "--into", str(into), "--sequence-length", "10", "--side-by-side", "4", "--quiet"]
    return [*common, *map(str, more)]


def newest(into: Path) -> Path:
    folder = Folder(into / "checkpoints")
    return folder.path(folder.list()[-1].id)


def rows(file: Path) -> list[dict[str, Any]]:
    return list(json.loads(file.read_text())["rows"])


def test_a_journal_is_learned_and_its_rows_are_kept_and_told(
    journal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {file: file.read_bytes() for file in journal.iterdir() if file.is_file()}
    into, told = tmp_path / "into", tmp_path / "rows.json"
    assert learn_cli.main(words(journal, into, "--epochs", 1, "--json", told)) == 0
    out, err = capsys.readouterr()
    assert "260 fixations of 1 streams: 26 sequences of 10, 5 of them held out; 0 fixations left over" in err
    lines = out.splitlines()
    assert lines[0].split("  ")[0] == "epoch"
    assert [line.split()[0] for line in lines[1:]] == ["0", "1"]
    kept = rows(told)
    assert [(row["epoch"], row["gradient"], row["side_by_side"]) for row in kept] == [(0, "rfp", 4), (1, "rfp", 4)]
    assert {"train_error", "held_out_error", "trivial", "skill", "early", "late", "rank"} <= set(kept[0])
    assert rows(into / "epochs.json") == kept
    assert all(file.read_bytes() == content for file, content in before.items()), "only read"
    with closing(Journal(into / "rjepa.db")) as made:
        begun = json.loads(made.meta("begun") or "")
    assert begun == {"checkpoint": newest(into).parent.name, "journal": 0}, "a worker there can't begin as new"
    assert learn_cli.main(words(journal, into, "--epochs", 1)) == 0, "again: nothing is left to do"
    assert rows(into / "epochs.json") == kept
    assert learn_cli.main(words(journal, into, "--epochs", 2)) == 0, "and more can be asked for"
    assert [row["epoch"] for row in rows(into / "epochs.json")] == [0, 1, 2]
    assert rows(into / "epochs.json")[:2] == kept


def test_killed_and_stopped_it_ends_with_the_bits_of_an_undisturbed_run(journal: Path, tmp_path: Path) -> None:
    more = ("--epochs", 6, "--checkpoint-every", 0)
    assert learn_cli.main(words(journal, tmp_path / "whole", *more)) == 0
    into = tmp_path / "into"
    finished = len(rows(tmp_path / "whole" / "epochs.json"))
    assert finished == 7

    def epochs(least: int) -> bool:
        return (into / "epochs.json").exists() and len(rows(into / "epochs.json")) >= least

    with start_rjepa("learn", *words(journal, into, *more), logs=tmp_path / "logs") as running:
        wait_until(lambda: epochs(1) or not running.alive(), 60.0, "a finished epoch")
        running.kill()
    assert len(rows(into / "epochs.json")) < finished, "killed on the way"
    with start_rjepa("learn", *words(journal, into, *more), logs=tmp_path / "logs") as running:
        wait_until(lambda: epochs(3) or not running.alive(), 60.0, "two more")
        running.process.send_signal(signal.SIGINT)
        assert running.wait(20.0) == 130, running.stderr()
        assert "going on with epoch" in running.stderr()
        assert "the same command goes on from there" in running.stderr()
    assert len(rows(into / "epochs.json")) < finished, "stopped on the way"
    assert learn_cli.main(words(journal, into, *more)) == 0
    assert rows(into / "epochs.json") == rows(tmp_path / "whole" / "epochs.json")
    assert newest(into).read_bytes() == newest(tmp_path / "whole").read_bytes()


def test_what_was_learned_is_served_from(journal: Path, tmp_path: Path) -> None:
    into = tmp_path / "into"
    assert learn_cli.main(words(journal, into, "--epochs", 1)) == 0
    learner = Learner(CONFIG, seed=5)
    learner.load(snapshots.read(newest(into)))
    steps = learner.steps
    assert steps > 400, "two passes over the learned part"
    ports = ["--ingest", f"tcp://127.0.0.1:{free_port()}", "--publish", f"tcp://127.0.0.1:{free_port()}"]
    command = ["--data-dir", into, "--weights", "random", "--seed", "0", *ports]
    with start_rjepa("worker", *command, logs=tmp_path / "logs") as worker:

        def ready() -> dict[str, Any] | None:
            assert worker.alive(), worker.stderr()[-3000:]
            if not (into / "control.sock").exists():
                return None
            status = ControlClient(into).ask({"op": "status"}, timeout_s=5.0)
            return None if status["recovering"] else status

        status = wait_until(ready, 60.0, "the worker")
        assert status["model"]["steps"] == steps
        assert status["last_checkpoint"] == newest(into).parent.name
        with pytest.raises(DirectoryInUse):
            learn_cli.main(words(journal, into, "--epochs", 2))
        assert worker.terminate() == 0
    fill(into, 3)
    with pytest.raises(DirectoryRefused, match="journal of its own"):
        learn_cli.main(words(journal, into, "--epochs", 2))


def test_a_running_worker_is_not_disturbed_and_what_it_takes_later_does_not_count(
    journal: Path, tmp_path: Path
) -> None:
    into = tmp_path / "into"
    with closing(Journal(journal / "rjepa.db")) as worker:  # a writer with the log open
        assert learn_cli.main(words(journal, into, "--epochs", 0)) == 0
        worker.append([_admitted("anna", 260, b"later")])
    fill(journal, 40, stream="ben", seed=1)
    assert learn_cli.main(words(journal, into, "--epochs", 1)) == 0
    other = tmp_path / "other"
    assert learn_cli.main(words(journal, other, "--epochs", 0)) == 0
    assert rows(other / "epochs.json")[0]["held_out_error"] != rows(into / "epochs.json")[0]["held_out_error"]


def test_what_of_a_journal_can_be_learned_from(data_dir: Path) -> None:
    fill(data_dir, 8, stream="anna", starts=(3,))
    fill(data_dir, 4, stream="gone")
    with closing(Journal(data_dir / "rjepa.db")) as journal:
        journal.append_command("delete", "gone", {}, 0.0)
        journal.claim("anna", 2, 0.0, lost=range(8, 10))
        journal.append([_admitted("anna", seq, b"x" * 7500) for seq in (10, 11, 12)])
        z = np.ones(CONFIG.features, np.float32)
        last = journal.last_id()
        journal.put_features((last - 2 + number, z * number) for number in range(2))
        journal.append_command("reset", "anna", {}, 0.0)
        journal.append([_admitted("anna", 13, b"x" * 7500)])
    gathered = JournalSource(data_dir).features(CONFIG, None)
    (anna,) = gathered.streams
    assert anna.name == "anna"
    assert len(anna.z) == 10, "8 before the gap, 2 with features after it"
    assert anna.starts.tolist() == [False] * 3 + [True] + [False] * 4 + [True, False]
    assert anna.looks[2] is not None
    assert anna.looks[2].gaze == (3 / 11, 3 / 7)
    with closing(Journal(data_dir / "rjepa.db")) as journal:
        assert gathered.until == journal.last_id() - 3
        journal.put_features([(journal.last_id(), z), (journal.last_id() - 2, z)])
        again = JournalSource(data_dir).features(CONFIG, None)
        assert again.streams[0].starts.tolist()[-2:] == [False, True], "a reset begins anew"
        assert JournalSource(data_dir).features(CONFIG, gathered.until).digest == gathered.digest
        for _ in range(3):
            journal.count_crash(2)
    fewer = JournalSource(data_dir).features(CONFIG, gathered.until)
    assert len(fewer.streams[0].z) == 9, "what ended the process three times is left out"
    assert fewer.streams[0].starts[1]


def test_a_stream_that_is_deleted_is_learned_from_no_more(journal: Path, tmp_path: Path) -> None:
    fill(journal, 40, stream="ben", seed=1)
    assert learn_cli.main(words(journal, tmp_path / "into", "--epochs", 0)) == 0
    with closing(Journal(journal / "rjepa.db")) as worker:
        worker.append_command("delete", "ben", {}, 0.0)
    with pytest.raises(DirectoryRefused, match="begun with other fixations"):
        learn_cli.main(words(journal, tmp_path / "into", "--epochs", 1))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--side-by-side", 2), "begun with side_by_side 4, not 2"),
        (("--gradient", "bptt"), "begun with gradient rfp, not bptt"),
        (("--gates", "dense"), "begun with model.gates two-point, not dense"),
        (("--sequence-length", 20), "begun with sequence_length 10, not 20"),
    ],
)
def test_a_directory_begun_otherwise_is_refused(
    more: tuple[object, ...], said: str, journal: Path, tmp_path: Path
) -> None:
    into = tmp_path / "into"
    assert learn_cli.main(words(journal, into, "--epochs", 0)) == 0
    with pytest.raises(DirectoryRefused, match=re.escape(said)) as refused:
        learn_cli.main([*words(journal, into, "--epochs", 1), *map(str, more)])
    assert "--into" in str(refused.value)
    assert refused.value.exit_code == 3


def test_what_cannot_be_learned_says_the_way_out(journal: Path, tmp_path: Path) -> None:
    into = tmp_path / "into"
    with pytest.raises(LearnRefused, match="either --from DATA_DIR, or recordings"):
        learn_cli.main(["--into", str(into)])
    with pytest.raises(LearnRefused, match="1 --video and 0 --gaze"):
        learn_cli.main(["--into", str(into), "--video", "a.mp4"])
    with pytest.raises(LearnRefused, match="say --weights, and the patches are seen again"):
        learn_cli.main(words(journal, into, "--preset", "paper"))
    with pytest.raises(LearnRefused, match=r"began with --seed 0, .* say --seed 0"):
        learn_cli.main(words(journal, into, "--seed", 3))
    with pytest.raises(DirectoryRefused, match="no such database"):
        learn_cli.main(words(tmp_path / "nowhere", into))
    with pytest.raises(DirectoryRefused, match="journal of its own"):
        learn_cli.main(words(journal, journal))
    with pytest.raises(LearnRefused, match="no gaze file"):
        learn_cli.main(["--into", str(into), "--recordings", str(tmp_path), "--weights", "random"])
    with pytest.raises(SettingsError, match="--weights has no default"):
        learn_cli.main(["--into", str(into), "--video", "a.mp4", "--gaze", "a.csv"])
    with pytest.raises(SettingsError, match="no share from 0 to below 1"):
        learn_cli.main(words(journal, into, "--held-out", 1))
    assert not into.exists(), "what is refused leaves nothing behind"


def test_too_few_sequences_are_refused(journal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    into = tmp_path / "into"
    for length, said in ((300, "the longest stretch without a break has 260"), (200, "too few to hold one out")):
        assert rjepa.main(["learn", *words(journal, into, "--sequence-length", length)]) == 2
        err = capsys.readouterr().err
        assert said in err
        assert "say a smaller sequence length" in err
    assert not into.exists()


def a_recording(folder: Path, name: str, seconds: float, seed: int) -> None:
    """A drifting field of colours, and gaze that rests 300 ms at a place and jumps."""
    import cv2

    rng = np.random.default_rng(seed)
    wide = cv2.resize(rng.integers(0, 255, (30, 60, 3), dtype=np.uint8), (960, 480), interpolation=cv2.INTER_CUBIC)
    writer = cv2.VideoWriter(str(folder / f"{name}.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25.0, (320, 240))
    for frame in range(int(25 * seconds)):
        writer.write(wide[frame % 240 : frame % 240 + 240, 2 * frame : 2 * frame + 320])
    writer.release()
    lines = ["timestamp [ms],x [px],y [px]"]
    for place in range(int(seconds / 0.3)):
        x, y = rng.uniform(40, 280), rng.uniform(40, 200)
        for sample in range(75):
            lines.append(f"{300 * place + 4 * sample},{x + rng.normal(0, 0.1):.2f},{y + rng.normal(0, 0.1):.2f}")
    (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")


def test_recordings_by_the_command(made_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Video and gaze to fixations, patches, features and epochs; the calibration is one that was made before."""
    cache, films = tmp_path / "cache", tmp_path / "films"
    cache.mkdir()
    films.mkdir()
    a_recording(films, "one", 7.0, 0)
    a_recording(films, "two", 5.0, 1)
    weights = load_weights(parse_weights("random"), seed=0).digest
    known = digest([digest(CONFIG.retina.model_dump(mode="json")), weights, 0])
    shutil.copy(made_directory / "calibration.safetensors", cache / f"calibration-{known}.safetensors")
    into = tmp_path / "into"
    common = ["--weights", "random", "--px-per-degree", "10", "--sequence-length", "5", "--epochs", "1"]
    where = ["--into", into, "--cache", cache]
    done = run_rjepa("learn", "--recordings", films, *where, *common, limit_s=150.0)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "of 2 streams: 7 sequences of 5, 1 of them held out" in done.stderr
    assert "epoch 1/1" in done.stderr, "the bar"
    held = rows(into / "epochs.json")
    assert [row["epoch"] for row in held] == [0, 1]
    assert all(row["held_out_error"] > 0.0 for row in held)
    pairs = [("--video", films / f"{name}.avi", "--gaze", films / f"{name}.csv") for name in ("one", "two")]
    again = [*map(str, sum(pairs, ())), *map(str, where), *common, "--quiet"]
    assert learn_cli.main(again) == 0
    assert "going on with epoch 2" in capsys.readouterr().err, "the same recordings, named otherwise"
    with pytest.raises(LearnRefused, match=r"nothing was seen .no fixation was found."):
        learn_cli.main([*again, "--min-confidence", "1", "--time-unit", "ns"])
    with pytest.raises(OptionError, match=r"--min-confidence: .*got '7'"):
        learn_cli.main([*again, "--min-confidence", "7"])


def test_every_way_to_read_a_recording_is_there(tmp_path: Path) -> None:
    """The options of `rjepa stream recording` that say how: by name, and by what becomes of an .asc of two eyes."""
    flags = {action.dest for action in learn_cli._parser()._actions}
    assert {"px_per_degree", "format", "eye", "video_message", "video_loop"} <= flags
    assert set(ReadingSettings.model_fields) <= flags
    made = eyelink(tmp_path)
    picture = tmp_path / "board.png"
    x: dict[str | None, float] = {}
    for eye in (None, "left", "right"):
        seen, dropped = recorded(picture, made.path, {"eye": eye, "min_confidence": None})
        assert len(seen.patches) == len(PLACES)
        assert not dropped
        x[eye] = float(seen.gaze[1, 0])
    assert x[None] == x["right"] == pytest.approx(PLACES[1][0], abs=1e-3), "the left one was lost for a while"
    assert x["left"] == pytest.approx(PLACES[1][0] - 60 / 1680, abs=1e-3)
    seen, _ = recorded(picture, made.path, {"video_message": "SYNCTIME", "detector": "tracker"})
    assert len(seen.patches) == len(PLACES)
    with pytest.raises(OptionError, match="none of the 2 messages"):
        recorded(picture, made.path, {"video_message": "no such"})
    with pytest.raises(ClientError, match=r"anna\.asc"):
        recorded(picture, made.path, {"format": "tobii"})
    picture.rename(tmp_path / "anna.png")
    assert recordings_in(tmp_path) == [(tmp_path / "anna.png", made.path)]


def test_patches_of_a_journal_are_seen_again(journal: Path, made_directory: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    weights = load_weights(parse_weights("random"), seed=0).digest
    known = digest([digest(CONFIG.retina.model_dump(mode="json")), weights, 0])
    shutil.copy(made_directory / "calibration.safetensors", cache / f"calibration-{known}.safetensors")
    short = tmp_path / "short"
    shutil.copytree(made_directory, short)
    fill(short, 24)
    command = [*words(short, tmp_path / "into", "--epochs", 0), "--sequence-length", "4"]
    assert learn_cli.main([*command, "--weights", "random", "--cache", str(cache)]) == 0
    assert len(list(cache.glob("features-*.npy"))) == 1
    with pytest.raises(DirectoryRefused, match="begun with other fixations"):
        learn_cli.main(command)
    coarse = [*words(short, tmp_path / "coarse", "--epochs", 0), "--sequence-length", "4", "--precision", "bfloat16"]
    with pytest.raises(LearnRefused, match="made with precision float32: say that"):
        learn_cli.main(coarse)
    assert learn_cli.main([*coarse, "--weights", "random", "--cache", str(cache)]) == 0
    assert len(list(cache.glob("features-*.npy"))) == 2, "others than those of float32"
    assert JournalSource(tmp_path / "coarse").identity["precision"] == "bfloat16"


def test_one_begun_by_an_older_program_goes_on_with_what_its_checkpoints_say(journal: Path, tmp_path: Path) -> None:
    into = tmp_path / "into"
    command = words(journal, into, "--epochs", 0)
    assert learn_cli.main(command) == 0
    with closing(Journal(into / "rjepa.db")) as made:
        identity = json.loads(made.meta("identity") or "")
        del identity["precision"]
        made.put_meta("identity", json.dumps(identity))
    assert learn_cli.main(command) == 0
    assert learn_cli.main(words(journal, into, "--epochs", 1)) == 0
    assert JournalSource(into).identity == identity, "a worker would refuse every checkpoint there is"
    assert Folder(into / "checkpoints").list()[-1].identity == identity


def test_a_checkpoint_says_how_far_it_is(journal: Path, tmp_path: Path) -> None:
    into = tmp_path / "into"
    assert learn_cli.main(words(journal, into, "--epochs", 1)) == 0
    manifest = Folder(into / "checkpoints").list()[-1]
    assert manifest.pinned
    assert manifest.label == "2 epochs from 0 finished, 0 groups of the next"
    assert snapshots.read(newest(into)).meta[META]["rows"][1]["epoch"] == 1
