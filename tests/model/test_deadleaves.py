from __future__ import annotations

import numpy as np
import pytest

from model.deadleaves import dead_leaves


@pytest.fixture(scope="module")
def patches() -> np.ndarray:
    return dead_leaves(200, seed=0)


def test_patches_follow_from_seed_and_index(patches: np.ndarray) -> None:
    assert patches.shape == (200, 50, 50, 3)
    assert patches.dtype == np.uint8
    np.testing.assert_array_equal(dead_leaves(5, seed=0), patches[:5])
    assert len({patch.tobytes() for patch in (*patches, *dead_leaves(5, seed=1))}) == 205


def test_they_look_like_photographs_to_their_statistics(patches: np.ndarray) -> None:
    light = patches.astype(np.float64).mean(axis=-1) / 255
    assert 0.3 < light.mean() < 0.6
    spread = light.std(axis=(1, 2))
    low, middle, high = np.percentile(spread, [5, 50, 95])
    assert low < 0.06 < 0.08 < middle < 0.2 < high  # plain walls, and hard shadows
    window = np.outer(np.hanning(50), np.hanning(50))
    power = np.mean(np.abs(np.fft.fft2((light - light.mean(axis=(1, 2), keepdims=True)) * window)) ** 2, axis=0)
    frequency = np.hypot(np.fft.fftfreq(50)[:, None], np.fft.fftfreq(50)[None, :])
    bands = [power[(frequency > f) & (frequency <= 2 * f)].mean() for f in (0.03, 0.06, 0.12, 0.24)]
    falls = np.log2(np.array(bands[:-1]) / np.array(bands[1:]))
    assert ((falls > 1.5) & (falls < 5.0)).all()  # photographs: about 2 to 4 octave by octave
    chroma = np.abs(patches.astype(np.float64).mean(axis=(1, 2)) - 255 * light.mean(axis=(1, 2))[:, None]).max(axis=1)
    assert np.median(chroma) < 20.0 < 50.0 < chroma.max()  # most are nearly grey, some are all one colour


def test_progress_ends_at_the_count() -> None:
    told: list[tuple[int, int]] = []
    dead_leaves(120, seed=0, progress=lambda done, total: told.append((done, total)))
    assert told == [(50, 120), (100, 120), (120, 120)]
