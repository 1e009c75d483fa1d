"""Logging of the worker and the HTTP interface: lines on stderr, or one JSON object a line."""

from __future__ import annotations

import json
import logging
import sys
import time

import cv2


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        told = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "thread": record.threadName,
            "message": record.getMessage(),
        }
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return json.dumps(told)


def set_up(*, as_json: bool) -> None:
    """Send what loggers say, from INFO up, to stderr; pictures that can't be decoded are told by us, not by OpenCV."""
    handler = logging.StreamHandler(sys.stderr)
    lines = logging.Formatter(
        "%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s", datefmt="%Y-%m-%dT%H:%M:%S"
    )
    lines.converter = time.gmtime
    handler.setFormatter(_Json() if as_json else lines)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
