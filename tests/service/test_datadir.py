from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch

import service.identity
from model.calibration import calibrate
from model.config import ModelConfig
from model.errors import ModelError
from model.openvino_network import openvino_version
from model.snapshot import Snapshot
from model.weights import load_weights, parse_weights
from service.checkpoints import Checkpoints, Place
from service.datadir import DataDirectory
from service.errors import DirectoryInUse, DirectoryRefused
from service.identity import open_retina
from service.journal import Journal
from service.settings import Settings
from service.stepmark import StepMark
from tests.helpers import ROOT, patches


def opened(path: Path, config: ModelConfig | None = None, weights: str = "random", **settings: object) -> np.ndarray:
    """What the retina of a data directory makes of two patches, if it can be opened so."""
    told = Settings(data_dir=path, **settings)  # type: ignore[arg-type]
    with closing(DataDirectory(path)) as directory, closing(Journal(directory.database)) as journal:
        retina, identity = open_retina(
            directory, journal, config or ModelConfig.preset("default"), parse_weights(weights), told, lambda *_: None
        )
        assert json.loads(journal.meta("identity") or "") == identity
        return retina.features(patches(2))


def test_what_it_was_made_with_opens_it_and_nothing_else(data_dir: Path, tmp_path: Path) -> None:
    z = opened(data_dir)
    assert np.array_equal(opened(data_dir, threads=identity_of(data_dir)["threads"]), z)
    threads = int(identity_of(data_dir)["threads"]) + 1
    compiled = ModelConfig.preset("default", gates="dense", dense_step="compiled")
    for refused, told in [
        ({"config": ModelConfig.preset("long")}, "preset default, not long"),
        ({"config": ModelConfig.preset("default", gates="dense")}, "gates two-point, not dense"),
        ({"config": compiled}, "dense_step torch, not compiled"),
        ({"seed": 1}, "seed 0, not 1"),
        ({"threads": threads}, f"threads {threads - 1}, not {threads}"),
        ({"engine": "plain"}, "engine packed, not plain"),
        ({"engine": "openvino"}, "engine packed, not openvino"),
        ({"precision": "bfloat16"}, "precision float32, not bfloat16"),
    ]:
        with pytest.raises(DirectoryRefused, match=told) as caught:
            opened(data_dir, **refused)  # type: ignore[arg-type]
        assert "another --data-dir" in str(caught.value)
        assert caught.value.exit_code == 3


def test_one_made_before_the_retina_was_packed_goes_on_as_it_was(data_dir: Path) -> None:
    assert identity_of(data_dir)["engine"] == "packed"
    packed = opened(data_dir)
    older = {key: value for key, value in identity_of(data_dir).items() if key not in ("engine", "precision")}
    with closing(Journal(data_dir / "rjepa.db")) as journal:
        journal.put_meta("identity", json.dumps(older))
    plain = opened(data_dir)
    assert identity_of(data_dir) == older, "its checkpoints tell the same, and stay good"
    np.testing.assert_allclose(plain, packed, rtol=0.0, atol=1e-3 * np.abs(packed).max())
    told = Settings(data_dir=data_dir)
    with closing(DataDirectory(data_dir)) as directory, closing(Journal(directory.database)) as journal:
        retina, _ = open_retina(
            directory, journal, ModelConfig.preset("default"), parse_weights("random"), told, lambda *_: None
        )
    assert (retina.describe()["engine"], retina.describe()["precision"]) == ("plain", "float32")


@pytest.fixture
def quick_calibration(monkeypatch: pytest.MonkeyPatch) -> ModelConfig:
    """New directories calibrate on a few patches; a model whose retina that is enough for."""
    monkeypatch.setattr(service.identity, "calibrate", partial(calibrate, synthetic=20))
    return ModelConfig.preset("default", retina={"features": 4})


@pytest.mark.skipif(openvino_version() is None, reason="openvino is not installed: pip install 'rjepa[openvino]'")
def test_one_made_with_openvino_goes_on_with_it_alone(tmp_path: Path, quick_calibration: ModelConfig) -> None:
    path = tmp_path / "data"
    z = opened(path, quick_calibration, engine="openvino")
    assert identity_of(path)["engine"] == "openvino"
    assert np.array_equal(opened(path, quick_calibration), z), "it need not be named again"
    with pytest.raises(DirectoryRefused, match=r"engine openvino, not packed.*another --data-dir"):
        opened(path, quick_calibration, engine="packed")
    written = Checkpoints(path / "checkpoints").write(
        Snapshot({}, {}), Place(journal=0, timeline=0, cursors={}, sequences={}), identity_of(path), "cpu"
    )
    assert (written.identity["engine"], written.openvino_version) == ("openvino", openvino_version())


def test_one_made_with_bfloat16_goes_on_with_it_alone(tmp_path: Path, quick_calibration: ModelConfig) -> None:
    path = tmp_path / "data"
    z = opened(path, quick_calibration, precision="bfloat16")
    assert identity_of(path)["precision"] == "bfloat16"
    assert np.array_equal(opened(path, quick_calibration), z), "it need not be named again"
    with pytest.raises(DirectoryRefused, match="precision bfloat16, not float32"):
        opened(path, quick_calibration, precision="float32")


def test_without_openvino_nothing_is_begun_and_nothing_goes_on(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ModelError, match=r"pip install 'rjepa\[openvino\]'") as caught:
        opened(tmp_path / "new", engine="openvino")
    assert caught.value.exit_code == 2
    assert not (tmp_path / "new" / "calibration.safetensors").exists()
    with closing(Journal(data_dir / "rjepa.db")) as journal:
        journal.put_meta("identity", json.dumps(identity_of(data_dir) | {"engine": "openvino"}))
    with pytest.raises(ModelError, match=r"pip install 'rjepa\[openvino\]'"):
        opened(data_dir)


def identity_of(path: Path) -> dict[str, object]:
    with closing(Journal(path / "rjepa.db")) as journal:
        found: dict[str, object] = json.loads(journal.meta("identity") or "")
        return found


def test_other_weights_are_refused_and_the_same_by_another_name_are_not(data_dir: Path, tmp_path: Path) -> None:
    same = dict(load_weights(parse_weights("random"), seed=0).tensors)
    safetensors.torch.save_file(same, tmp_path / "same.safetensors")
    assert np.array_equal(opened(data_dir, weights=f"file={tmp_path / 'same.safetensors'}"), opened(data_dir))
    same["conv1.weight"] = same["conv1.weight"] + 1
    safetensors.torch.save_file(same, tmp_path / "other.safetensors")
    with pytest.raises(DirectoryRefused, match=r"weights random .* not file="):
        opened(data_dir, weights=f"file={tmp_path / 'other.safetensors'}")


def test_a_calibration_that_is_gone_damaged_or_another(data_dir: Path) -> None:
    file = data_dir / "calibration.safetensors"
    good = file.read_bytes()
    file.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(DirectoryRefused, match="backup"):
        opened(data_dir)
    file.unlink()
    with pytest.raises(DirectoryRefused, match=str(file)):
        opened(data_dir)


def test_one_at_a_time(tmp_path: Path) -> None:
    """The holder is named; its end, however it comes, lets the next one in."""
    script = f"""
import sys, pathlib
from service.datadir import DataDirectory
directory = DataDirectory(pathlib.Path({str(tmp_path)!r}))
print(flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(DirectoryInUse, match=f"process {holder.pid}"):
            DataDirectory(tmp_path)
        holder.send_signal(signal.SIGKILL)
    DataDirectory(tmp_path).close()
    DataDirectory(tmp_path).close()


def test_a_place_that_can_be_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DirectoryRefused, match="file"):
        DataDirectory(tmp_path / "file")
    with pytest.raises(DirectoryRefused, match="file"):
        DataDirectory(tmp_path / "file" / "below")


def test_a_new_directory_is_for_its_owner_alone(tmp_path: Path) -> None:
    DataDirectory(tmp_path / "a" / "b").close()
    assert (tmp_path / "a" / "b").stat().st_mode & 0o077 == 0
    shutil.rmtree(tmp_path / "a")


def test_the_step_mark_outlives_the_process(tmp_path: Path) -> None:
    script = f"""
import os, pathlib
from service.stepmark import StepMark
mark = StepMark(pathlib.Path({str(tmp_path / "step")!r}))
assert mark.entry == 0
mark.begin(2**40 + 7)
os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == -9
    with closing(StepMark(tmp_path / "step")) as mark:
        assert mark.entry == 2**40 + 7
        mark.end()
    with closing(StepMark(tmp_path / "step")) as mark:
        assert mark.entry == 0
