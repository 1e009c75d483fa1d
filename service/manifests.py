"""What checkpoints there are: the half of :mod:`service.checkpoints` that needs no torch.

``checkpoints/<id>/learner.safetensors``, ``diagnostics.safetensors`` where diagnostics are kept, and ``manifest.json``,
which holds the others' sha256 and its own.
"""

from __future__ import annotations

import builtins
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from clients.wire import ID_PATTERN
from service.errors import CheckpointBad, RequestRefused

LEARNER = "learner.safetensors"
DIAGNOSTICS = "diagnostics.safetensors"
MANIFEST = "manifest.json"
FORMAT_VERSION = 1
_ID = re.compile(ID_PATTERN)


class SequenceState(BaseModel):
    """Of one stream: the id its present sequence was marked with, and whether its sequences are marked at all."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str | None = None
    marked: bool = False


class Part(BaseModel):
    """A file beside the learner's that a checkpoint may do without."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size_bytes: int
    sha256: str


class Manifest(BaseModel):
    """``manifest.json``. ``journal``: last journal id learned; ``cursors``: of each stream the next seq to learn.

    ``openvino_version`` is None where something else computes the retina. Bits hang on it as on torch's, so it is told;
    a newer one is not refused, for features that were seen are kept.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = 1
    id: str
    created: float
    label: str | None
    pinned: bool
    timeline: int
    parent: str | None
    journal: int
    cursors: dict[str, int]
    sequences: dict[str, SequenceState]
    identity: dict[str, Any]
    device: str
    torch_version: str
    openvino_version: str | None = None
    size_bytes: int
    sha256: str
    diagnostics: Part | None = None

    def json_object(self) -> dict[str, Any]:
        """The checkpoint as HTTP tells it."""
        told = ("id", "created", "label", "pinned", "size_bytes", "sha256", "timeline", "parent", "cursors")
        return self.model_dump(include=set(told))


class Folder:
    """The folder of checkpoints, for reading; any process may, while another writes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def list(self) -> list[Manifest]:
        """Every checkpoint whose manifest can be read, oldest first; the parameters are not looked at."""
        found = []
        for name in self._names():
            try:
                found.append(self.manifest(name))
            except (CheckpointBad, RequestRefused):
                continue
        return sorted(found, key=lambda manifest: (manifest.journal, manifest.created, manifest.id))

    def unreadable(self) -> builtins.list[str]:
        """Folders whose manifest can't be read: what is wrong with each."""
        wrong = []
        for name in self._names():
            try:
                self.manifest(name)
            except CheckpointBad as error:
                wrong.append(str(error))
            except RequestRefused:
                continue  # deleted meanwhile
        return wrong

    def manifest(self, checkpoint: str) -> Manifest:
        """The manifest of one checkpoint. Raises :class:`RequestRefused` (404) or :class:`CheckpointBad`."""
        folder = self._known(checkpoint)
        try:
            body = json.loads((folder / MANIFEST).read_bytes())
            told = body.pop("manifest_sha256")
            if digest_of(body) != told:
                raise CheckpointBad(f"checkpoint {checkpoint}: its manifest does not match its own sha256")
            if body.get("format_version") != FORMAT_VERSION:
                raise CheckpointBad(
                    f"checkpoint {checkpoint} has format version {body.get('format_version')}, this program reads "
                    f"{FORMAT_VERSION}; use the program's version that wrote it"
                )
            manifest = Manifest.model_validate(body)
        except FileNotFoundError:
            raise CheckpointBad(f"checkpoint {checkpoint} has no {MANIFEST}") from None
        except (OSError, ValueError, KeyError, AttributeError, TypeError, ValidationError) as error:
            raise CheckpointBad(f"checkpoint {checkpoint}: {MANIFEST} can't be read: {first_line(error)}") from None
        if manifest.id != checkpoint:
            raise CheckpointBad(f"checkpoint {checkpoint}: its manifest is of {manifest.id}")
        return manifest

    def path(self, checkpoint: str) -> Path:
        """The safetensors file of a checkpoint. Raises as :meth:`manifest`."""
        self.manifest(checkpoint)
        return self.folder / checkpoint / LEARNER

    def _names(self) -> Iterator[str]:
        if not self.folder.is_dir():
            return
        for entry in sorted(self.folder.iterdir()):
            if entry.is_dir() and _ID.fullmatch(entry.name):
                yield entry.name

    def _known(self, checkpoint: str) -> Path:
        if not _ID.fullmatch(checkpoint) or not (self.folder / checkpoint).is_dir():
            raise RequestRefused(404, "unknown_checkpoint", f"there is no checkpoint {checkpoint[:80]!r}")
        return self.folder / checkpoint


def digest_of(body: dict[str, Any]) -> str:
    """The sha256 (hex) of a manifest without its own sha256."""
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def first_line(error: Exception) -> str:
    """An error in one line."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
