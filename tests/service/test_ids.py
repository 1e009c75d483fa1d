"""A name that is let in never leads out of its folder: the property behind every path made from an id."""

from __future__ import annotations

from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from clients.wire import WireError, check_stream_name
from service.access import Id, StreamPattern
from service.access_cli import main
from service.errors import CheckpointBad, RequestRefused, SettingsError
from service.manifests import MANIFEST, Folder
from tests.service.api_support import Lab, interface, working

FOLDER = Path("/data/checkpoints")
PARTS = st.sampled_from(["..", ".", "/", "\\", "\0", "\n", "a", "-", "_", "*", "~", "%2e", "\u2024", "A" * 64, " "])
NAMES = st.one_of(st.text(max_size=70), st.lists(PARTS, max_size=6).map("".join), st.from_regex(r"[\w.\-]{1,66}\s?"))
ADAPTERS = TypeAdapter(Id), TypeAdapter(StreamPattern)


def stays(name: str) -> bool:
    """Whether a file called so lies in the folder itself."""
    path = FOLDER / name
    return "\0" not in name and path.parent == FOLDER and path.name == name and name not in (".", "..")


@given(NAMES)
def test_a_name_that_is_let_in_stays_in_its_folder(name: str) -> None:
    try:
        assert check_stream_name(name) == name
    except WireError:
        accepted = False
    else:
        accepted = True
        assert stays(name)
    for adapter in ADAPTERS:
        try:
            adapter.validate_python(name)
        except ValidationError:
            assert not accepted, "a stream's name is an id everywhere"
        else:
            assert stays(name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Checkpoints with folders all around, each with a manifest that must not be found."""
    root = tmp_path_factory.mktemp("ids")
    for place in (root, root / "checkpoints", root / "checkpoints" / "a" / "a", root / "a"):
        place.mkdir(exist_ok=True, parents=True)
        (place / MANIFEST).write_text("{}")
    return Folder(root / "checkpoints")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(NAMES)
@example("..")
@example("a/a")
@example("../a")
@example("")
def test_no_checkpoint_is_looked_for_outside(folder: Folder, name: str) -> None:
    with pytest.raises((CheckpointBad, RequestRefused)) as refused:
        folder.manifest(name)
    if isinstance(refused.value, CheckpointBad):
        assert stays(name)
        assert (folder.folder / name).is_dir()
    with pytest.raises((CheckpointBad, RequestRefused)):
        folder.path(name)


@pytest.mark.parametrize("name", ["../x", "a/b", "/etc/passwd", "", "..", ".lock", "a\n", "a" * 65])
def test_the_command_line_takes_no_path_for_a_name(tmp_path: Path, name: str) -> None:
    where = ["--access-dir", str(tmp_path / "access")]
    for words in (["keys", "client", name], ["keys", "revoke", name], ["token", "add", name, "--role", "read"]):
        with pytest.raises(SettingsError):
            main([*words, *where])
    with pytest.raises(SettingsError):
        main(["pair", name, "--streams", "a", *where])


def test_over_http_no_path_leads_out(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "manifest.json").write_text("outside")
    lab = Lab(tmp_path / "data")
    lab.claim("s1")
    names = [
        "..",
        "../..",
        "..%2f..",
        "%2e%2e",
        "..%5c",
        "%2fetc%2fpasswd",
        "a%00b",
        "%2e%2e%2f%2e%2e%2f",
        "a%0a",
        "c1/..",
    ]
    try:
        with working(tmp_path / "data") as desk, interface(tmp_path / "data") as client:
            for name in names:
                for path in (f"/v1/checkpoints/{name}", f"/v1/checkpoints/{name}/download", f"/v1/streams/{name}"):
                    # Byte for byte: a client's library would make the path plain before it sends it.
                    with closing(HTTPConnection(client.base_url.host, client.base_url.port or 0, timeout=20)) as raw:
                        raw.request("GET", path, headers={"Host": "localhost"})
                        got = raw.getresponse()
                        assert got.status in (404, 405, 422), path
                        assert b"outside" not in got.read()
            assert desk.commands() == []
    finally:
        lab.journal.close()
