"""A client as an outsider writes it: from the contract alone, with pyzmq and json, in under 80 lines.

    python contract_client.py ADDRESS STREAM COUNT

streams COUNT fixations from the stream's next_seq on, waits until each is learned, prints one JSON line.
"""

import json
import sys
import time

import zmq


def patch(seq):
    """7,500 bytes, 50 x 50 x 3: a coloured gradient that depends on seq."""
    color = (seq * 41 % 256, seq * 67 % 256, seq * 97 % 256)
    return bytes(value * (x + y + 20) // 120 for y in range(50) for x in range(50) for value in color)


def fixation(stream, seq):
    return {
        "stream": stream,
        "seq": seq,
        "onset": seq * 0.25,
        "duration": 0.2,
        "gaze": {"x": seq % 10 / 10, "y": seq % 7 / 7},
        "patch": {"encoding": "raw", "height": 50, "width": 50, "channels": 3, "color": "rgb", "degrees": 5.0},
    }


class Client:
    def __init__(self, address, stream):
        self.address, self.stream, self.epoch, self.socket = address, stream, None, None
        self.context = zmq.Context()

    def send(self, kind, body, *more):
        self.socket.send_multipart([b"rjepa1", kind.encode(), json.dumps(body).encode(), *more])

    def hello(self):
        """Claim the stream, or come back to it, on a fresh socket; returns the first seq not yet durable."""
        if self.socket is not None:
            self.socket.close(linger=0)
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.connect(self.address)
        claim = {} if self.epoch is None else {"epoch": self.epoch}
        self.send("hello", {"stream": self.stream, "notify": "learned", **claim})
        if not self.socket.poll(5000):
            return self.hello()
        welcome = json.loads(self.socket.recv_multipart()[2])
        self.epoch = welcome["epoch"]
        return welcome["next_seq"]

    def stream_all(self, count):
        first = sent = self.hello()
        acked, learned, quiet = first - 1, {}, time.monotonic()
        while len(learned) < count:
            while sent < first + count and sent <= acked + 64:
                self.send("fixation", fixation(self.stream, sent), patch(sent))
                sent += 1
            if self.socket.poll(100):
                _, kind, body = self.socket.recv_multipart()
                body, quiet = json.loads(body), time.monotonic()
                if kind == b"ack":
                    acked = max(acked, body["seq"])
                elif kind == b"learned":
                    learned[body["seq"]] = body["prediction_error"]
                elif kind == b"resend":
                    sent = body["from_seq"]
                else:
                    raise SystemExit(f"{kind.decode()}: {body}")
            elif time.monotonic() - quiet > 2 and sent > acked + 1:
                sent, quiet = self.hello(), time.monotonic()
        return {"next_seq_at_hello": first, "acked": acked, "learned": len(learned), "last": learned[max(learned)]}


if __name__ == "__main__":
    print(json.dumps(Client(sys.argv[1], sys.argv[2]).stream_all(int(sys.argv[3]))))
