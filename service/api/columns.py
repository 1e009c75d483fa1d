"""A record as a row of a table: the columns of CSV and Arrow, in their order.

The nested members of the JSON form are flat here: ``gaze_x``, ``trivial_copy_last``; ``embedding`` comes last where
it is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from service.schema import TRIVIAL_ERRORS


@dataclass(frozen=True)
class Column:
    """One column; ``needed`` ones are never null."""

    name: str
    kind: Literal["int64", "float64", "utf8"]
    unit: str
    said: str
    needed: bool = False


COLUMNS = (
    Column("stream", "utf8", "", "the stream's name", needed=True),
    Column("seq", "int64", "", "number of the fixation in its stream, from 0", needed=True),
    Column("time", "float64", "s", "arrival, unix time", needed=True),
    Column("onset", "float64", "s", "source clock"),
    Column("duration", "float64", "s", "of the fixation"),
    Column("gaze_x", "float64", "frame widths", "0 left to 1 right"),
    Column("gaze_y", "float64", "frame heights", "0 top to 1 bottom"),
    Column("position", "int64", "fixations", "place in its sequence, from 0"),
    Column("sequence_id", "utf8", "", "as the client marked it"),
    Column("prediction_error", "float64", "the model's distance", "null where there was no prediction"),
    *(
        Column(f"trivial_{name}", "float64", "the model's distance", f"error of the trivial predictor {name}")
        for name in TRIVIAL_ERRORS
    ),
    Column("effective_rank", "float64", "dimensions", "of the embeddings seen by then"),
    Column("update_norm", "float64", "l2 of weights", "of all weight changes of the step"),
    Column("latency_ms", "float64", "ms", "arrival to learned"),
    Column("skipped", "utf8", "", "why it was not learned: lost, refused, quarantined, repeat"),
    Column("timeline", "int64", "", "the timeline it belongs to", needed=True),
)
NAMES = tuple(column.name for column in COLUMNS)
EMBEDDING = "embedding"
