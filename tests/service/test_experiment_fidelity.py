"""`rjepa experiment fidelity`: a row for each circuit and gate scale, and what they say of exactness."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from model.gate_scale import CIRCUITS
from service import experiment_cli, experiment_fidelity


def test_fidelity_has_a_row_for_each_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two circuits at two scales: what is exact has the gradient of BPTT, dense gates only while they are small."""
    monkeypatch.setattr(experiment_fidelity, "CIRCUITS", {name: CIRCUITS[name] for name in ("two-point", "dense")})
    monkeypatch.setattr(experiment_fidelity, "SCALES", (0.0, 1.0))
    rows = tmp_path / "rows.json"
    words = ["fidelity", "--seeds", "0", "--quiet", "--cache", str(tmp_path), "--json", str(rows)]
    assert experiment_cli.main(words) == 0
    held = {(row["circuit"], row["scale"]): row for row in json.loads(rows.read_text())["rows"]}
    assert list(held) == [("two-point", 0.0), ("two-point", 1.0), ("dense", 0.0), ("dense", 1.0)]
    for exact in (("two-point", 0.0), ("two-point", 1.0), ("dense", 0.0)):
        assert held[exact]["relative_error"] < 1e-10
    assert held["dense", 1.0]["cosine"] < 0.9
    assert "cosine with BPTT" in capsys.readouterr().out
