"""Whether the worker can be reached with this computer's keys, without claiming a stream or moving one.

A fixation without a hello is answered ``hello_required`` where the key may write the stream, ``unauthorized`` where it
may not, and moves nothing: a stream's owner stays its owner. Where nothing is answered, what ZeroMQ tells of the
connection says why: refused, no such computer, keys on one side only, a key that is not on the list.
"""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from typing import Any

import zmq
from zmq.utils.monitor import recv_monitor_message

from clients import wire
from clients.connection import Keys, check_address, new_dealer
from clients.doctor_finding import Finding, State
from clients.errors import KeyRefused, WorkerUnreachable

PINGS = 5
HANDSHAKE_S = 2.0
_SIGNATURE = b"\xff" + bytes(8) + b"\x7f"
_GREETING_BYTES = 64
OVER = (
    zmq.EVENT_HANDSHAKE_FAILED_AUTH,
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL,
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL,
    zmq.EVENT_DISCONNECTED,
    zmq.EVENT_CLOSED,
)
"""What ZeroMQ tells of a connection that will not answer any more. Which of them come, and when, is its own affair."""
WHAT = "worker"
START_ONE = "start one there (rjepa serve), or name another with --ingest ADDRESS"
REACHED = 0


@dataclass(frozen=True)
class WorkerSeen:
    """``exit_code``: 0 if fixations can be sent, else that of :class:`WorkerUnreachable` or :class:`KeyRefused`."""

    finding: Finding
    exit_code: int


def ask_worker(address: str, keys: Keys | None, stream: str, limit_s: float) -> WorkerSeen:
    """Ask the worker at ``address`` whether it takes fixations of ``stream`` from the holder of ``keys``."""
    try:
        check_address(address)
    except WorkerUnreachable as error:
        return _not_reached(str(error), "name the worker's with --ingest ADDRESS")
    context: zmq.Context[Any] = zmq.Context()
    dealer = new_dealer(context, address, keys)
    monitor = dealer.get_monitor_socket()
    try:
        dealer.connect(address)
        return _Knock(dealer, monitor, address, keys is not None, stream, time.monotonic() + limit_s).seen()
    except zmq.ZMQError as error:
        return _not_reached(f"{address} can't be connected to: {error.strerror}", START_ONE)
    finally:
        dealer.disable_monitor()
        monitor.close(linger=0)
        dealer.close(linger=0)
        context.term()


class _Knock:
    """One connection: pings over it, and what became of it."""

    def __init__(
        self,
        dealer: zmq.Socket[bytes],
        monitor: zmq.Socket[bytes],
        address: str,
        keyed: bool,
        stream: str,
        end_s: float,
    ) -> None:
        self._socket = dealer
        self._monitor = monitor
        self._address = address
        self._keyed = keyed
        self._stream = stream
        self._end_s = end_s
        self._events: dict[int, int] = {}

    def seen(self) -> WorkerSeen:
        """Ping until there were enough answers, or it is known why there are none."""
        took_s = []
        for _ in range(PINGS):
            begin_s = time.perf_counter()
            answer = self._ping()
            if answer is None:
                break
            took_s.append(time.perf_counter() - begin_s)
            if answer.code == wire.ErrorCode.UNAUTHORIZED.value:
                return self._may_not_write()
            if answer.code != wire.ErrorCode.HELLO_REQUIRED.value:
                return _not_reached(
                    f"{self._address} answers {answer.code}: {answer.detail}",
                    "is it a worker of this version? rjepa --version here and there",
                )
        if not took_s:
            return self._silent()
        how = "with this computer's key" if self._keyed else "without keys"
        told = f"{self._address} answers in {min(took_s) * 1e3:.1f} ms, {how}; stream {self._stream} may be written"
        return WorkerSeen(Finding(WHAT, State.OK, told), REACHED)

    def _ping(self) -> wire.Error | None:
        """The worker's answer to a fixation without a hello; None if the connection failed or the time is over."""
        self._socket.send_multipart(_fixation(self._stream))
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._monitor, zmq.POLLIN)
        while (left_s := self._end_s - time.monotonic()) > 0:
            ready = dict(poller.poll(int(left_s * 1000) + 1))
            if self._monitor in ready:
                event = recv_monitor_message(self._monitor)
                self._events[int(event["event"])] = int(event["value"])
                if int(event["event"]) in OVER:
                    return None
            if self._socket in ready:
                try:
                    message, _ = wire.decode(self._socket.recv_multipart())
                except wire.WireError:
                    continue
                if isinstance(message, wire.Error):
                    return message
        return None

    def _silent(self) -> WorkerSeen:
        """Why there was no answer."""
        address, events = self._address, self._events
        if zmq.EVENT_HANDSHAKE_FAILED_AUTH in events:
            return _key_refused(
                f"{address} does not know this computer's key",
                "on the learning machine: rjepa keys list shows those in force, rjepa pair NAME makes a new file",
            )
        if zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL in events or zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL in events:
            return self._no_handshake(_mechanism(address, HANDSHAKE_S))
        if zmq.EVENT_CLOSED in events and zmq.EVENT_CONNECTED not in events:
            return _not_reached(f"nothing listens at {address}", START_ONE)
        if zmq.EVENT_CONNECTED in events:
            return _not_reached(
                f"something listens at {address} and does not answer",
                f"is it a worker, and well? Else {START_ONE}",
            )
        return _not_reached(
            f"no connection to {address}",
            "is the name right, the computer on and in this network, the port open in its firewall?",
        )

    def _no_handshake(self, mechanism: str | None) -> WorkerSeen:
        """The two sides could not agree; ``mechanism`` is what the other one says it wants."""
        address = self._address
        if mechanism == "CURVE" and self._keyed:
            return _key_refused(
                f"{address} has another key than the one in this computer's file",
                "make a new file on the learning machine: rjepa pair NAME --streams PATTERN",
            )
        if mechanism == "CURVE":
            return _key_refused(
                f"{address} asks for keys, and none was given",
                "on the learning machine: rjepa pair NAME --streams PATTERN; bring the file here and say --pair FILE",
            )
        if mechanism == "NULL" and self._keyed:
            return _key_refused(f"{address} takes no keys, and a key was given", "leave --pair and --key away")
        return _not_reached(f"what listens at {address} is no worker", f"look at the port; {START_ONE}")

    def _may_not_write(self) -> WorkerSeen:
        return _key_refused(
            f"{self._address} knows this computer's key, which may not write stream {self._stream}",
            "name one that it may with --stream NAME, or list another: rjepa pair NAME --streams PATTERN",
        )


def _not_reached(told: str, remedy: str) -> WorkerSeen:
    return WorkerSeen(Finding(WHAT, State.TROUBLE, told, remedy), WorkerUnreachable.exit_code)


def _key_refused(told: str, remedy: str) -> WorkerSeen:
    return WorkerSeen(Finding(WHAT, State.TROUBLE, told, remedy), KeyRefused.exit_code)


def _mechanism(address: str, limit_s: float) -> str | None:
    """What the other side names in its greeting (ZMTP 3: NULL, CURVE); None if it has none that can be read.

    Of our own greeting only signature and version are sent: it has nothing to disagree with, and tells all of its own.
    """
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    told = b""
    try:
        with socket.create_connection((host.strip("[]"), int(port)), limit_s) as raw:
            raw.sendall(_SIGNATURE + b"\x03")
            while len(told) < _GREETING_BYTES and (part := raw.recv(_GREETING_BYTES - len(told))):
                told += part
    except (OSError, ValueError):
        return None
    if len(told) < _GREETING_BYTES or (told[0], told[9]) != (_SIGNATURE[0], _SIGNATURE[9]):
        return None
    return told[12:32].rstrip(b"\0").decode("ascii", errors="replace")


def _fixation(stream: str) -> list[bytes]:
    """A whole fixation, so that only the missing hello is wrong with it."""
    message = wire.FixationMessage(
        stream=stream,
        seq=0,
        onset=0.0,
        duration=0.0,
        gaze=wire.Gaze(x=0.5, y=0.5),
        patch=wire.PatchHeader.ours(),
    )
    return wire.encode(message, bytes(wire.PATCH_HEIGHT_PX * wire.PATCH_WIDTH_PX * 3))
