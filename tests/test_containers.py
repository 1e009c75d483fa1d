"""What the containers may do, read from the files the engine reads: nothing that is not needed."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from tests.helpers import ROOT

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text()
WRITTEN = {"/data", "/access", "/handout", "/spool"}
"""What a container may write, besides /tmp in memory: its volumes."""


def stages() -> dict[str, str]:
    """The Dockerfile's stages by name, those they are built on put before them."""
    found: dict[str, str] = {}
    for part in re.split(r"(?m)^(?=FROM )", DOCKERFILE)[1:]:
        base, name = re.match(r"FROM (\S+) AS (\S+)", part).groups()  # type: ignore[union-attr]
        found[name] = found.get(base, "") + part
    return found


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_without_root_rights_and_writes_to_its_volumes_alone(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service.get("privileged") in (None, False)
    assert service["pids_limit"] > 0
    for open_door in ("pid", "ipc", "userns_mode", "devices", "user"):
        assert open_door not in service
    assert service.get("network_mode") in (None, "none")
    assert service["tmpfs"] == ["/tmp"]
    for volume in service["volumes"]:
        source, target = volume.split(":")[:2]
        assert source in COMPOSE["volumes"], "no folder of the host"
        assert target in WRITTEN


@pytest.mark.parametrize("name", SERVICES)
def test_every_image_runs_as_a_user_that_is_not_root(name: str) -> None:
    stage = stages()[SERVICES[name]["build"]["target"]]
    users = re.findall(r"(?m)^USER (\S+)", stage)
    assert users[-1] == "rjepa"
    assert re.search(r"useradd --uid (\d+)", stage).group(1) != "0"  # type: ignore[union-attr]
    after = stage[stage.rindex("USER rjepa") :]
    assert "RUN" not in after


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_published_on_loopback_and_keys_are_read_only(name: str) -> None:
    service = SERVICES[name]
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    for volume in service["volumes"]:
        if name != "init" and volume.startswith(("access:", "handout:")):
            assert volume.endswith(":ro")
