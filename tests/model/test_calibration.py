from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from model.calibration import Calibration, calibrate, whitening
from model.config import RetinaConfig
from model.deadleaves import dead_leaves
from model.errors import ModelError
from tests.model.retinas import FITTED_ON, RANDOM, SMALL, SmallRetina, TrainedFiles

TINY = RetinaConfig(features=4)


def participation(rows: np.ndarray) -> float:
    covariance = np.cov(rows.astype(np.float64).T)
    return float(np.trace(covariance) ** 2 / np.square(covariance).sum())


def test_features_of_patches_not_seen_before_are_nearly_white(small: SmallRetina) -> None:
    unseen = dead_leaves(160, seed=99)
    z = small.retina.features(unseen)
    variances = z.astype(np.float64).var(axis=0)
    assert np.abs(z.mean(axis=0)).max() < 0.5
    assert 0.7 < np.median(variances) < 1.6
    assert variances.min() > 0.3
    assert variances.max() < 8.0  # a few patches are unlike all others, and 320 are few to fit on
    correlations = np.corrcoef(z.T)[np.triu_indices(16, 1)]
    assert np.abs(correlations).mean() < 0.25
    raw = small.retina.backbone.pooled(unseen)
    assert participation(raw) < 2.0 < 6.0 < participation(z)


def steep(rows: int, columns: int, *, seed: int) -> Tensor:
    """Gaussian rows in a turned basis, variances falling as 1/rank."""
    generator = torch.Generator().manual_seed(seed)
    turn = torch.linalg.qr(torch.randn(columns, columns, generator=torch.Generator().manual_seed(0)).double()).Q
    deviations = torch.arange(1, columns + 1, dtype=torch.float64).rsqrt()
    return (torch.randn(rows, columns, generator=generator).double() * deviations) @ turn


def test_small_components_are_not_blown_up_or_crushed_on_unseen_rows() -> None:
    fitted, unseen = steep(200, 400, seed=1), steep(2000, 400, seed=2)
    spread = (unseen @ whitening(fitted, 48)).square().mean(dim=0)
    for quarter in spread.chunk(4):
        assert 0.7 < float(quarter.mean()) < 1.3
    plain = torch.linalg.svd(fitted, full_matrices=False)
    overfitted = (unseen @ plain.Vh[:48].T / plain.S[:48] * 200**0.5).square().mean(dim=0)
    assert float(overfitted[-12:].mean()) < 0.6, "the case is too easy to show anything"


def test_whitening_by_either_matrix_is_white_and_of_settled_sign() -> None:
    many = steep(4000, 30, seed=3)
    projection = whitening(many, 30)
    white = many @ projection
    torch.testing.assert_close(white.T @ white / 4000, torch.eye(30).double(), atol=0.15, rtol=0.0)
    torch.testing.assert_close(projection, whitening(-many, 30))
    few = steep(60, 80, seed=3)
    torch.testing.assert_close(whitening(few, 5), whitening(-few, 5))
    # The same rows with columns of zeros beside them go by the other matrix.
    wide = torch.cat([many[:100], torch.zeros(100, 200).double()], dim=1)
    torch.testing.assert_close(whitening(wide, 10)[:30], whitening(many[:100], 10))


def test_the_same_seed_gives_the_same_digest(trained: TrainedFiles) -> None:
    first = calibrate(TINY, RANDOM, seed=3, synthetic=20)
    again = calibrate(TINY, RANDOM, seed=3, synthetic=20)
    assert first.digest == again.digest
    assert first.projection is not None
    assert again.projection is not None
    assert torch.equal(first.projection, again.projection)
    assert calibrate(TINY, trained.file, seed=3, synthetic=20).digest != first.digest


def test_random_weights_get_statistics_and_trained_ones_keep_theirs(small: SmallRetina, trained: TrainedFiles) -> None:
    assert len(small.calibration.statistics) == 2 * 53
    assert small.calibration.fitted_on == f"{FITTED_ON} synthetic dead-leaves patches, seed 0"
    given = dead_leaves(20, seed=8)
    calibration = calibrate(TINY, trained.simsiam, seed=0, patches=given)
    assert not calibration.statistics
    assert calibration.fitted_on.startswith("20 given patches, sha256 ")
    assert calibration.weights == str(trained.simsiam)
    assert calibration.weights_digest == trained.weights.digest
    other = calibrate(TINY, trained.simsiam, seed=0, patches=given[::-1])
    assert other.fitted_on != calibration.fitted_on


def test_progress_rises_to_its_end() -> None:
    told: list[tuple[int, int]] = []
    calibrate(TINY, RANDOM, seed=0, synthetic=12, progress=lambda done, total: told.append((done, total)))
    assert {total for _, total in told} == {3 * 12}
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1][0] == 3 * 12
    assert len(told) >= 3


def test_patches_that_can_not_calibrate_are_refused(trained: TrainedFiles) -> None:
    def refusal(patches: np.ndarray) -> str:
        with pytest.raises(ModelError) as refused:
            calibrate(TINY, trained.file, seed=0, patches=patches)
        return str(refused.value)

    assert "9 patches are too few to calibrate 4 features: give at least 10" in refusal(dead_leaves(9, seed=0))
    assert "uint8 (20, 32, 32, 3)" in refusal(np.zeros((20, 32, 32, 3), np.uint8))
    assert "give patches that differ" in refusal(np.repeat(dead_leaves(1, seed=0), 12, axis=0))
    assert "vary in 2 dimensions only, not in 4" in refusal(np.concatenate([dead_leaves(3, seed=0)] * 4))


def test_saving_and_loading_keeps_everything(small: SmallRetina, tmp_path: Path) -> None:
    path = tmp_path / "calibration.safetensors"
    small.calibration.save(path)
    assert [file.name for file in tmp_path.iterdir()] == ["calibration.safetensors"]
    loaded = Calibration.load(path)
    assert loaded.digest == small.calibration.digest
    assert (loaded.seed, loaded.features, loaded.whiten, loaded.stages) == (0, 16, True, "all")
    assert loaded.projection is not None
    assert small.calibration.projection is not None
    assert torch.equal(loaded.projection, small.calibration.projection)
    loaded.check_fits(SMALL, small.retina.weights_digest)


def test_every_flipped_bit_and_changed_fact_is_noticed(small: SmallRetina, tmp_path: Path) -> None:
    path = tmp_path / "calibration.safetensors"
    small.calibration.save(path)
    whole = path.read_bytes()
    header = int.from_bytes(whole[:8], "little") + 8
    random = np.random.default_rng(0)
    for place in random.integers(header, len(whole), 20):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(random.integers(8))
        path.write_bytes(damaged)
        with pytest.raises(ModelError, match=r"calibration\.safetensors: damaged"):
            Calibration.load(path)

    path.write_bytes(whole)
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    facts = {**json.loads(metadata["facts"]), "seed": 5}
    safetensors.torch.save_file(safetensors.torch.load_file(path), path, {**metadata, "facts": json.dumps(facts)})
    with pytest.raises(ModelError, match="damaged"):
        Calibration.load(path)


def test_files_that_are_no_calibration_are_refused(small: SmallRetina, tmp_path: Path) -> None:
    path = tmp_path / "calibration.safetensors"
    with pytest.raises(ModelError, match="no such calibration"):
        Calibration.load(path)
    small.calibration.save(path)
    whole = path.read_bytes()
    for content in (b"", b"something else", whole[:100], whole[: len(whole) // 2], whole + b"more"):
        path.write_bytes(content)
        with pytest.raises(ModelError, match=r"calibration\.safetensors: "):
            Calibration.load(path)
    safetensors.torch.save_file({"scale": torch.ones(3)}, path)
    with pytest.raises(ModelError, match="format None"):
        Calibration.load(path)
    safetensors.torch.save_file({"scale": torch.ones(3)}, path, {"format": "rjepa-calibration-1", "facts": "{}"})
    with pytest.raises(ModelError, match="no calibration that can be read"):
        Calibration.load(path)
