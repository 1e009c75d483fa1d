from __future__ import annotations

from pathlib import Path

import pytest

from service.errors import SettingsError
from service.settings import load_settings


@pytest.fixture(autouse=True)
def _no_settings_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("RJEPA_"):
            monkeypatch.delenv(name)


def test_a_flag_goes_before_the_environment_that_before_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('seed = 1\nlag_limit = 7\npreset = "long"\ndata_dir = "from-file"\n')
    monkeypatch.setenv("RJEPA_SEED", "2")
    monkeypatch.setenv("RJEPA_PRESET", "paper")
    found = load_settings(["--config", str(file), "--seed", "3"], "worker")
    assert (found.seed, found.preset, found.lag_limit, found.data_dir) == (3, "paper", 7, Path("from-file"))
    monkeypatch.setenv("RJEPA_CONFIG", str(file))
    assert load_settings([], "worker").lag_limit == 7


def test_defaults_and_flags() -> None:
    found = load_settings([], "api")
    assert (found.ingest, found.weights, found.log_json) == ("tcp://127.0.0.1:5555", None, False)
    assert load_settings(["--log-json", "--http=[::1]:81", "--weights", "random"], "api").log_json


@pytest.mark.parametrize(
    ("words", "environment", "toml", "told"),
    [
        (["--sede", "1"], {}, "", "--sede"),
        (["--see", "1"], {}, "", "--see"),
        (["word"], {}, "", "word"),
        (["--seed", "x"], {}, "", "--seed"),
        (["--seed", "-1"], {}, "", "--seed"),
        (["--gates", "three-point"], {}, "", "three-point"),
        (["--ingest", "127.0.0.1:5555"], {}, "", "--ingest"),
        (["--http", "8000"], {}, "", "--http"),
        ([], {"RJEPA_SEDE": "1"}, "", "RJEPA_SEDE is no setting, did you mean RJEPA_SEED"),
        ([], {"RJEPA_SEED": "x"}, "", "RJEPA_SEED"),
        ([], {}, "sede = 1", "sede is no setting, did you mean seed"),
        ([], {}, "[table]\nseed = 1", "table is no setting"),
        ([], {}, 'seed = "x"', "key seed"),
        ([], {}, "seed = ", "TOML"),
    ],
)
def test_a_wrong_key_or_value_is_named_in_one_line(
    words: list[str],
    environment: dict[str, str],
    toml: str,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if toml:
        file = tmp_path / "settings.toml"
        file.write_text(toml)
        words = [*words, "--config", str(file)]
    with pytest.raises(SettingsError) as caught:
        load_settings(words, "worker")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_missing_file_is_named() -> None:
    with pytest.raises(SettingsError, match="no-such-file"):
        load_settings(["--config", "no-such-file"], "worker")


def test_variables_of_the_clients_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RJEPA_SPOOL_DIR", "somewhere")
    monkeypatch.setenv("RJEPA_SEED", "")
    assert load_settings([], "worker").seed == 0


def test_help_names_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    from service.settings import Settings

    with pytest.raises(SystemExit) as ended:
        load_settings(["--help"], "worker")
    assert ended.value.code == 0
    told = capsys.readouterr().out
    for name in Settings.model_fields:
        assert f"--{name.replace('_', '-')}" in told
