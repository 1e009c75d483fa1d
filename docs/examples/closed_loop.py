"""A closed loop: what is shown next depends on how much the last fixation surprised.

    python closed_loop.py --ingest tcp://127.0.0.1:5555 --publish tcp://127.0.0.1:5556 --stream loop-1 --count 50

Offers fixations, reads the records the worker publishes, reacts to each prediction error, and prints how long it took
from ``offer`` to the record: through the spool, the wire, the journal, the retina, a learning step, and back.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import zmq

from rjepa import Sender

LIMIT_S = 30.0
SURPRISE = 1.2
"""An error so many times the mean of those before is a surprise."""


def patch(kind: int, chance: np.random.Generator) -> np.ndarray:
    """What is looked at, uint8 (50, 50, 3): blobs, another time each, coarse or fine by ``kind``.

    In an experiment it is 5 degrees of the stimulus. The very same twice is a repeat: recorded, and not learned from.
    """
    cells = (5, 10, 25)[kind % 3]
    return chance.integers(30, 255, (cells, cells, 3), np.uint8).repeat(50 // cells, 0).repeat(50 // cells, 1)


def subscribe(context: zmq.Context, address: str, stream: str, pair: Path | None) -> zmq.Socket:
    """A SUB to the records of ``stream``, and to no other's."""
    socket = context.socket(zmq.SUB)
    if pair is not None:
        keys = json.loads(pair.read_text())
        socket.curve_publickey, socket.curve_secretkey, socket.curve_serverkey = (
            keys[name].encode() for name in ("public", "secret", "server")
        )
    socket.subscribe(f"record/{stream}/")
    socket.connect(address)
    return socket


def record_of(socket: zmq.Socket, onset_s: float) -> dict | None:
    """The record of the fixation with this onset; None if none comes (PUB may drop, the history over HTTP does not)."""
    end_s = time.monotonic() + LIMIT_S
    while (left_s := end_s - time.monotonic()) > 0:
        if socket.poll(int(left_s * 1000) + 1):
            record = json.loads(socket.recv_multipart()[1])
            if record["onset"] == onset_s:
                return record
    return None


def react(error: float | None, before: list[float]) -> int:
    """What to show next: on to another kind after a surprise, the same kind again without. An experiment's own idea."""
    surprised = error is None or not before or error > SURPRISE * np.mean(before)
    return 1 if surprised else 0


def main() -> None:
    """Run the loop."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ingest", default="tcp://127.0.0.1:5555")
    parser.add_argument("--publish", default="tcp://127.0.0.1:5556")
    parser.add_argument("--stream", default="loop-1")
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--pair", type=Path)
    parser.add_argument("--spool", type=Path)
    said = parser.parse_args()
    context = zmq.Context()
    records = subscribe(context, said.publish, said.stream, said.pair)
    took_ms, errors, kind, chance = [], [], 0, np.random.default_rng(0)
    with Sender(said.ingest, said.stream, key_file=said.pair, spool_dir=said.spool) as sender:
        sender.wait_welcome(LIMIT_S)
        for number in range(said.count):
            onset_s, gaze = time.time(), (0.5 + 0.4 * np.sin(number), 0.5 + 0.4 * np.cos(number))
            begun = time.perf_counter()
            sender.offer(onset_s=onset_s, duration_s=0.25, gaze=gaze, patch=patch(kind, chance))
            record = record_of(records, onset_s)
            if record is None:
                print(f"fixation {number}: no record in {LIMIT_S:g} s; goes on")
                continue
            took_ms.append(1e3 * (time.perf_counter() - begun))
            error = record["prediction_error"]
            step = react(error, errors)
            kind += step
            if error is not None:
                errors.append(error)
            print(f"fixation {record['seq']}: error {error}, {'on' if step else 'again'}, {took_ms[-1]:.0f} ms")
    records.close(linger=0)
    context.term()
    if took_ms:
        median, p99 = np.percentile(took_ms, (50, 99))
        print(f"round trip of {len(took_ms)}: median {median:.0f} ms, 99 % under {p99:.0f} ms")


if __name__ == "__main__":
    main()
