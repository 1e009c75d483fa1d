"""A checkerboard of known degrees, and how many degrees a patch of it covers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np

PX_PER_DEGREE = 16.0
SQUARE_DEG = 0.25


def checkerboard(width_px: int, height_px: int, px_per_degree: float = PX_PER_DEGREE) -> np.ndarray:
    """uint8 BGR (height, width, 3): squares of a quarter of a degree, drawn smooth where they end between pixels."""
    fine = 4
    square_px = px_per_degree * SQUARE_DEG * fine
    columns = (np.arange(width_px * fine) // square_px).astype(int)
    rows = (np.arange(height_px * fine) // square_px).astype(int)
    board = ((rows[:, None] + columns[None]) % 2 * 160 + 48).astype(np.float64)
    grey = board.reshape(height_px, fine, width_px, fine).mean(axis=(1, 3)).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def degrees_covered(patch: np.ndarray) -> tuple[float, float]:
    """Degrees of the board that ``patch`` (50, 50, 3) covers across and down, by its strongest frequency."""
    light = patch.astype(np.float64).mean(axis=2)
    window = np.hanning(50)
    frequencies = np.linspace(0.1, 0.35, 2501)
    waves = np.exp(-2j * np.pi * frequencies[:, None] * np.arange(50)[None])
    covered = []
    for lines in (light, light.T):
        still = (lines - lines.mean(axis=1, keepdims=True)) * window
        power = (np.abs(still @ waves.T) ** 2).sum(axis=0)
        covered.append(50.0 * float(frequencies[power.argmax()]) * 2 * SQUARE_DEG)
    return covered[0], covered[1]


@contextmanager
def network_camera(picture: np.ndarray) -> Iterator[str]:
    """The address of a camera in the network that shows ``picture`` about 30 times a second, as MJPEG over HTTP."""
    jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            try:
                while not ended.wait(1 / 30):
                    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                    self.wfile.write(head.encode() + jpeg + b"\r\n")
            except OSError:
                return

        def log_message(self, format: str, *args: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/camera.mjpg"
    finally:
        ended.set()
        server.shutdown()
        thread.join()
        server.server_close()
