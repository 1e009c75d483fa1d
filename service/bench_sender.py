"""``python -m service.bench_sender ADDRESS N``: N fixations of four streams as fast as they go; prints the seconds
from the first to the last ack. A process of its own, so that it takes nothing from the one that is measured.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np
import zmq

from clients.wire import VERSION

STREAMS = 4
LIMIT_MS = 60_000
_HEADER = {"encoding": "raw", "height": 50, "width": 50, "channels": 3, "color": "rgb", "degrees": 5.0}


def fixations(count: int) -> list[tuple[str, int, list[bytes]]]:
    """Stream, seq and frames of ``count`` fixations; the patches are noise: nobody looks at them."""
    generator = np.random.default_rng(0)
    made = []
    for number in range(count):
        stream, seq = f"stream{number % STREAMS}", number // STREAMS
        body = {
            "stream": stream, "seq": seq, "onset": 0.25 * seq, "duration": 0.2,
            "gaze": {"x": 0.25, "y": 0.5}, "patch": _HEADER,
        }  # fmt: skip
        made.append((stream, seq, [VERSION, b"fixation", json.dumps(body).encode(), generator.bytes(7500)]))
    return made


def send(address: str, count: int) -> float:
    """Send them, and wait for the last ack; seconds."""
    made = fixations(count)
    last = {stream: seq for stream, seq, _ in made}
    with zmq.Context() as context:
        sockets: dict[str, zmq.Socket[Any]] = {}
        for stream in last:
            sockets[stream] = context.socket(zmq.DEALER)
            sockets[stream].linger = 0
            sockets[stream].sndhwm = sockets[stream].rcvhwm = 0
            sockets[stream].connect(address)
            hello = json.dumps({"stream": stream, "notify": "durable"}).encode()
            sockets[stream].send_multipart([VERSION, b"hello", hello])
            assert sockets[stream].poll(LIMIT_MS), "no welcome"
            sockets[stream].recv_multipart()
        begun_s = time.perf_counter()
        for stream, _, frames in made:
            sockets[stream].send_multipart(frames)
        for stream, wanted in last.items():
            acked = -1
            while acked < wanted:
                assert sockets[stream].poll(LIMIT_MS), "no ack"
                acked = json.loads(sockets[stream].recv_multipart()[2])["seq"]
        took_s = time.perf_counter() - begun_s
        for one in sockets.values():
            one.close()
    return took_s


if __name__ == "__main__":
    sys.stdout.write(json.dumps({"seconds": send(sys.argv[1], int(sys.argv[2]))}))
