"""`rjepa experiment compare`: checkpoints, layers, records and a lab's own arrays over the same fixations."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.similarity import cka, rsa
from service import experiment_cli, experiment_compare
from service.checkpoints import Checkpoints
from service.compare_fixations import fixations_of
from service.compare_sides import LAYERS, load_array
from service.errors import DirectoryRefused, ExperimentRefused
from tests.service.bench import CONFIG, IDENTITY, life

SEEN = 110


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stream with a repeat, another one beside it, a checkpoint early and one late."""
    folder = tmp_path_factory.mktemp("source") / "data"
    with life(folder) as bench:
        bench.journal.put_meta("identity", json.dumps(IDENTITY))
        bench.offer("s", 60, seen=seen(), sequence="first")
        bench.offer("other", 5)
        bench.learn()
        bench.checkpoint()
        bench.command("reset", stream="s")
        bench.offer("s", SEEN - 60, seen=seen())
        bench.learn()
        bench.checkpoint()
    return folder


def seen() -> np.ndarray[Any, Any]:
    z = np.random.default_rng(0).standard_normal((SEEN, CONFIG.features)).astype(np.float32)
    z[70] = z[69]
    return z


def asked(source: Path, *words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quiet", action="store_true")
    experiment_compare.add_options(parser)
    return parser.parse_args([*words, "--over", str(source), "--stream", "s", "--quiet"])


def ids(source: Path) -> list[str]:
    return [manifest.id for manifest in Checkpoints(source / "checkpoints").list()]


def run(tmp_path: Path, *words: str) -> list[dict[str, Any]]:
    rows = tmp_path / "rows.json"
    rows.unlink(missing_ok=True)
    assert experiment_cli.main(["compare", *words, "--quiet", "--draws", "20", "--json", str(rows)]) == 0
    found: list[dict[str, Any]] = json.loads(rows.read_text())["rows"]
    return found


def test_fixations_come_with_what_is_kept_of_them(source: Path) -> None:
    found = fixations_of(source, "s")
    assert found.seqs == list(range(SEEN))
    np.testing.assert_array_equal(np.stack([z for z in found.z if z is not None]), seen())
    assert [at for at, start in enumerate(found.starts) if start] == [0, 60], "marked, and after the reset"
    assert [at for at, y in enumerate(found.recorded) if y is None] == [70], "the repeat"


def test_a_checkpoint_sees_again_what_the_learner_saw(source: Path) -> None:
    """Of a learner that learns nothing the embeddings are those that were recorded, to the bit."""
    with life(source.parent / "still") as bench:
        bench.journal.put_meta("identity", json.dumps(IDENTITY))
        bench.command("pause")
        bench.offer("s", 60, seen=seen(), sequence="first")
        bench.learn()
        (name,) = [bench.checkpoint()]
    one, other, seqs = experiment_compare.answers(asked(source.parent / "still", name, "recorded"))
    np.testing.assert_array_equal(one.answers, other.answers)
    assert list(seqs) == list(range(60))


def test_every_layer_is_what_it_is_called(source: Path) -> None:
    name = ids(source)[1]
    found = {}
    for layer in LAYERS:
        one, _, seqs = experiment_compare.answers(asked(source, name, name, "--layer", layer))
        found[layer] = one.answers
        wanted = [at for at in range(SEEN) if at != 70 and not (layer == "prediction" and at in (0, 60))]
        assert list(seqs) == wanted, "a repeat has none, and no prediction comes before a sequence's first"
    weights = Checkpoints(source / "checkpoints").read(name)[1].tensors
    kept = [at for at in range(SEEN) if at != 70]
    np.testing.assert_allclose(found["features"], seen()[kept], rtol=1e-6)
    v, u = weights["parameters/V"].double().numpy(), weights["parameters/U"].double().numpy()
    np.testing.assert_allclose(found["input"], found["features"] @ v.T, atol=1e-5)
    np.testing.assert_allclose(found["embedding"], found["state"] @ u.T, atol=1e-5)
    assert found["prediction"].shape == (SEEN - 3, CONFIG.embedding_size)


def test_checkpoints_are_named_in_every_way(source: Path, tmp_path: Path) -> None:
    early, late = ids(source)
    folder = source / "checkpoints" / late
    shutil.copy(folder / "learner.safetensors", tmp_path / "downloaded.safetensors")
    told = []
    for word in (
        late,
        str(folder),
        str(folder / "learner.safetensors"),
        str(source),
        str(tmp_path / "downloaded.safetensors"),
    ):
        told.append(experiment_compare.answers(asked(source, word, "recorded")))
        np.testing.assert_array_equal(told[-1][0].answers, told[0][0].answers)
        np.testing.assert_array_equal(told[-1][1].answers, told[0][1].answers)
    first, _, _ = experiment_compare.answers(asked(source, early, "recorded"))
    assert not np.array_equal(told[0][0].answers, first.answers), "it learned between them"


def test_the_rows_are_the_measures_and_a_second_run_finds_them(source: Path, tmp_path: Path) -> None:
    early, late = ids(source)
    words = [early, late, "--over", str(source), "--stream", "s", "--block", "5", "--arrays", str(tmp_path / "a.npz")]
    rows = run(tmp_path, *words)
    with np.load(tmp_path / "a.npz") as held:
        a, b, seqs = held["a"], held["b"], held["seq"]
    assert len(seqs) == SEEN - 1
    assert [row["measure"] for row in rows] == ["cka", "rsa"]
    assert rows[0]["value"] == pytest.approx(cka(a, b))
    assert rows[1]["value"] == pytest.approx(rsa(a, b))
    assert all(row["p"] == pytest.approx(1 / 21) and row["stimuli"] == SEEN - 1 for row in rows)
    kept = tmp_path / "rows.json"
    before = kept.read_bytes()
    drawn = ["--quiet", "--draws", "20", "--json", str(kept), "--figures", str(tmp_path / "drawn")]
    assert experiment_cli.main(["compare", *words, *drawn]) == 0
    assert kept.read_bytes() == before
    assert {path.suffix for path in (tmp_path / "drawn").iterdir()} == {".json", ".png", ".svg", ".md"}
    page = (tmp_path / "drawn" / "compare.md").read_text()
    assert f"over {SEEN - 1} stimuli: {rows[0]['value']:.3f}" in page
    assert "blocks of 5 neighbours were shuffled" in page


def test_rows_of_a_file_that_was_put_in_order_since_are_not_those_of_before(tmp_path: Path) -> None:
    answers = np.random.default_rng(2).integers(0, 9, (40, 6)).astype(float)  # their sums are exact in any order
    words = [str(tmp_path / "a.npy"), str(tmp_path / "b.npy"), "--quiet", "--draws", "20"]
    words += ["--json", str(tmp_path / "rows.json")]
    np.save(tmp_path / "a.npy", answers)
    for order in (np.random.default_rng(3).permutation(40), np.arange(40)):
        np.save(tmp_path / "b.npy", answers[order])
        assert experiment_cli.main(["compare", *words]) == 0
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert [row["value"] for row in rows if row["measure"] == "rsa"][-1] == pytest.approx(1.0)
    assert len(rows) == 4


def test_a_labs_own_recordings(source: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    neurons = seen() @ random.standard_normal((CONFIG.features, 7)) + random.standard_normal((SEEN, 7))
    np.save(tmp_path / "n.npy", neurons)
    np.savez(tmp_path / "n.npz", v1=neurons, v4=neurons[:, :3])
    np.savetxt(tmp_path / "n.csv", neurons, delimiter=",", header="a,b,c,d,e,f,g", comments="")
    over = ["--over", str(source), "--stream", "s", "--block", "1"]
    values = [run(tmp_path, ids(source)[1], word, "--layer", "features", *over)[0]["value"]
              for word in (str(tmp_path / "n.npy"), f"{tmp_path / 'n.npz'}:v1", str(tmp_path / "n.csv"))]  # fmt: skip
    assert values[0] == pytest.approx(values[1])
    assert values[0] == pytest.approx(values[2])
    assert values[0] > 0.5
    alone = run(tmp_path, str(tmp_path / "n.npy"), f"{tmp_path / 'n.npz'}:v4", "--stimuli", "50")
    assert alone[0]["stimuli"] == 50
    assert alone[0]["block"] == 1


def test_some_of_the_fixations(source: Path) -> None:
    _, _, seqs = experiment_compare.answers(
        asked(source, "recorded", "recorded", "--seqs", "20", "99", "--stimuli", "10")
    )
    assert (len(seqs), seqs[0], seqs[-1]) == (10, 20, 99)
    assert set(np.diff(seqs)) <= {8, 9, 10}, "evenly"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["recorded", "short.npy"], "short.npy has 5 rows, stream s of .* 110: they must be the same stimuli"),
        (["recorded", "nothing"], "nothing is no array, no checkpoint .* there are 2"),
        (["recorded", "recorded", "--layer", "state"], "what is recorded is the embedding, not state"),
        (["recorded", "two.npz"], "name one of its arrays as FILE.npz:NAME; there are a, b"),
        (["recorded", "flat.npy"], r"flat.npy has shape \(5,\)"),
        (["recorded", "words.csv"], "words.csv can't be read as numbers"),
        (["recorded", "recorded", "--seqs", "0", "30"], "can't be compared by cka: 31 stimuli are 2 blocks of 20"),
    ],
)
def test_what_makes_no_sense_is_refused(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str],
                                        said: str) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    np.save("short.npy", np.ones((5, 3)))
    np.save("flat.npy", np.ones(5))
    np.savez("two.npz", a=np.ones((5, 3)), b=np.ones((5, 3)))
    Path("words.csv").write_text("a,b\nc,d\n")
    with pytest.raises(ExperimentRefused, match=said):
        run(tmp_path, *words, "--over", str(source), "--stream", "s")


def test_where_there_is_nothing_to_compare_over(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ExperimentRefused, match="say --over DIR and --stream NAME"):
        run(tmp_path, "recorded", "recorded")
    with pytest.raises(ExperimentRefused, match="--over needs --stream"):
        run(tmp_path, "recorded", "recorded", "--over", str(source))
    with pytest.raises(ExperimentRefused, match="no stream 'nobody'; there are other, s"):
        run(tmp_path, "recorded", "recorded", "--over", str(source), "--stream", "nobody")
    with pytest.raises(DirectoryRefused):
        run(tmp_path, "recorded", "recorded", "--over", str(tmp_path), "--stream", "s")


def test_another_precision_is_refused_and_none_told_is_float32(source: Path, tmp_path: Path) -> None:
    from service.checkpoints import Place

    name, there = ids(source)[0], Checkpoints(source / "checkpoints")
    _, snapshot = there.read(name)
    (tmp_path / "other").mkdir()
    elsewhere = Checkpoints(tmp_path / "other" / "checkpoints")
    coarse = elsewhere.write(snapshot, Place(1, 0, {}, {}), {**IDENTITY, "precision": "bfloat16"}, "cpu")
    word = str(elsewhere.folder / coarse.id)
    with pytest.raises(ExperimentRefused, match="saw in bfloat16, the features kept in"):
        experiment_compare.answers(asked(source, word, name))


def test_another_retina_is_refused(source: Path, tmp_path: Path) -> None:
    name, other = ids(source)[0], tmp_path / "other"
    there = Checkpoints(source / "checkpoints")
    manifest, snapshot = there.read(name)
    from service.checkpoints import Place

    other.mkdir()
    strange = {**IDENTITY, "weights": {"name": "simsiam", "digest": "1"}}
    made = Checkpoints(other / "checkpoints").write(snapshot, Place(1, 0, {}, {}), strange, "cpu")
    word = str(other / "checkpoints" / made.id)
    with pytest.raises(ExperimentRefused, match="saw through another retina"):
        experiment_compare.answers(asked(source, word, name))
    shutil.rmtree(other)
    other.mkdir()
    config = {**snapshot.meta["config"], "units": 99}
    made = Checkpoints(other / "checkpoints").write(
        snapshot._replace(meta={**snapshot.meta, "config": config}), Place(1, 0, {}, {}), manifest.identity, "cpu"
    )
    with pytest.raises(ExperimentRefused, match="no checkpoint of this version"):
        experiment_compare.answers(asked(source, str(other / "checkpoints" / made.id), name))


def test_arrays_are_read_as_they_are(tmp_path: Path) -> None:
    np.savetxt(tmp_path / "plain.csv", np.arange(6).reshape(3, 2), delimiter=",")
    np.testing.assert_array_equal(load_array(str(tmp_path / "plain.csv")), np.arange(6).reshape(3, 2))
    np.savez(tmp_path / "one.npz", only=np.arange(6).reshape(3, 2))
    assert load_array(str(tmp_path / "one.npz")).dtype == np.float64
