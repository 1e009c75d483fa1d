"""What can be asked of a running worker, over its control socket.

======== ============================================= ====================================================
op       takes                                         gives
======== ============================================= ====================================================
status                                                 pid, started, recovering, recovered, to_recover,
                                                       waiting, oldest_wait_s, storage, last_checkpoint,
                                                       owners, model
embed    z: [m numbers], or patches: [1 to 64 of       embedding: [q numbers], or embeddings: one for each patch,
         {height, width, rgb: base64 of 50 x 50 x 3    all by the same weights; 503 ``busy`` where the learner has
         bytes}]                                       had no moment for a patch within 5 s
diagno-  what: representation | gradient,              diagnostics: as HTTP tells it; 503 ``busy`` as above,
stics    stream (or null: all of them)                 409 ``diagnostics_off``
command  name, stream, arguments                       id (of its journal entry), applied (whether it has been
                                                       carried out already), what it came to
======== ============================================= ====================================================

A command is answered once it is durable and, where its turn comes within 2 s, carried out. ``checkpoint`` and those
about one (``restore``, ``keep_checkpoint``, ``delete_checkpoint``) are answered when they are done; after 50 s with 504
``pending``: they will be.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from model.config import RatesConfig
from model.errors import ModelError
from model.learner import Learner
from service.checkpoints import Checkpoints
from service.control import Call
from service.errors import CheckpointBad, RequestRefused
from service.features import Features
from service.journal import Journal
from service.patches import SHAPE
from service.teller import Teller
from service.watching import Watching

APPLIED_S = 2.0
"""How long a command's answer waits for it to be carried out."""
DONE_S = 50.0
"""The same for the commands of :data:`DONE_FIRST`; less than whoever asks is ready to wait."""
EMBED_S = 5.0
"""How long a patch waits for a moment of the learner's."""
EMBED_ALL_S = 50.0
"""How long a call with many patches may take; less than whoever asks is ready to wait."""
MAX_PATCHES = 64
ABOUT_STREAMS = ("reset", "delete")
ABOUT_CHECKPOINTS = ("restore", "keep_checkpoint", "delete_checkpoint")
COMMANDS = ("pause", "resume", "rates", *ABOUT_STREAMS, "checkpoint", *ABOUT_CHECKPOINTS)
DONE_FIRST = ("checkpoint", *ABOUT_CHECKPOINTS)
"""Commands that are answered only when they are done."""


@dataclass(eq=False)
class _Embed:
    """A call for embeddings: z of what was looked at so far, and the patches still to be."""

    call: Call
    given_up_s: float
    last_s: float
    seen: list[np.ndarray[Any, np.dtype[np.float32]]]
    patches: deque[np.ndarray[Any, np.dtype[np.uint8]]]


@dataclass(frozen=True)
class _Waiting:
    call: Call
    answer_s: float
    name: str


class Desk:
    """Takes the requests in the control thread; the learning loop does what needs the learner."""

    def __init__(
        self,
        journal: Journal,
        checkpoints: Checkpoints,
        learner: Learner,
        features: Features,
        *,
        status: Callable[[], dict[str, Any]],
        wake: Callable[[], None],
        watching: Watching | None = None,
    ) -> None:
        self._journal = journal
        self._checkpoints = checkpoints
        self._learner = learner
        self._features = features
        self._status = status
        self._wake = wake
        self._lock = threading.Lock()
        self._waiting: dict[int, _Waiting] = {}
        self._embeds: deque[_Embed] = deque()
        self._patches: deque[_Embed] = deque()
        self._stopping = False
        self._teller = Teller(journal, watching, wake)

    # In the control thread.

    def handle(self, call: Call) -> None:
        """Answer, or see to it that an answer comes."""
        match call.request.get("op"):
            case "status":
                call.answer(self._status())
            case "embed":
                self._embed(call)
            case "command":
                self._command(call)
            case "diagnostics":
                if self._stopping:
                    raise RequestRefused(503, "stopping", "the worker ends")
                self._teller.ask(call)
            case other:
                told = f"{other!r} is no operation: status, embed, diagnostics or command"
                raise RequestRefused(422, "unknown_op", told)

    def tick(self) -> None:
        """Answer what has waited long enough."""
        now_s = time.monotonic()
        with self._lock:
            late = {entry: w for entry, w in self._waiting.items() if w.answer_s <= now_s}
            for entry in late:
                del self._waiting[entry]
        for entry, waiting in late.items():
            if waiting.name in DONE_FIRST:
                told = f"{waiting.name} is journalled as {entry} and will be done when its turn comes; don't ask again"
                waiting.call.refuse(504, "pending", f"{told}, see GET /v1/checkpoints")
            else:
                waiting.call.answer({"id": entry, "applied": False})
        self._teller.tick()
        with self._lock:
            given_up = [_given_up(line, now_s) for line in (self._embeds, self._patches)]
        for embed in itertools.chain(*given_up):
            embed.call.refuse(503, "busy", "the learner had no moment for it; ask again")

    def close(self) -> None:
        """The worker ends: nothing more is taken, what waits is told."""
        with self._lock:
            self._stopping = True
            waiting, self._waiting = self._waiting, {}
            embeds = [*self._embeds, *self._patches]
            self._embeds.clear()
            self._patches.clear()
        for entry, left in waiting.items():
            told = f"the worker ends; command {entry} is journalled and carried out next time"
            if left.name == "checkpoint":  # where its turn has come it is taken yet, and not next time
                told = f"the worker ends; checkpoint {entry} is taken before or next time, see GET /v1/checkpoints"
            left.call.refuse(503, "stopping", told)
        self._teller.close()
        for embed in embeds:
            embed.call.refuse(503, "stopping", "the worker ends")

    def _command(self, call: Call) -> None:
        name, stream = call.request.get("name"), call.request.get("stream")
        arguments = call.request.get("arguments") or {}
        if name not in COMMANDS or not isinstance(arguments, dict):
            raise RequestRefused(422, "unknown_command", f"{name!r} is no command: {', '.join(COMMANDS)}")
        self._check(name, stream, arguments)
        with self._lock:
            if self._stopping:
                raise RequestRefused(503, "stopping", "the worker ends")
            entry = self._journal.append_command(
                name, stream if name in ABOUT_STREAMS else None, arguments, time.time()
            )
            wait_s = DONE_S if name in DONE_FIRST else APPLIED_S
            self._waiting[entry] = _Waiting(call, time.monotonic() + wait_s, name)
        self._wake()

    def _check(self, name: str, stream: Any, arguments: dict[str, Any]) -> None:
        """Raise :class:`RequestRefused` for what could never be carried out."""
        if name in ABOUT_STREAMS:
            if not any(cursor.name == stream for cursor in self._journal.cursors()):
                raise RequestRefused(404, "unknown_stream", f"there is no stream {str(stream)[:80]!r}")
        elif name in ABOUT_CHECKPOINTS:
            checkpoint = arguments.get("checkpoint")
            if not isinstance(checkpoint, str):
                raise RequestRefused(422, "bad_argument", "checkpoint must be an id")
            try:
                self._checkpoints.manifest(checkpoint)
            except CheckpointBad as error:
                if name != "delete_checkpoint":
                    raise RequestRefused(409, error.code, str(error)) from None
            if name == "keep_checkpoint":
                _check_kept(arguments.get("label"), arguments.get("pinned"))
        elif name == "rates":
            self._check_rates(arguments.get("rates"))
        elif name == "checkpoint":
            _check_kept(arguments.get("label"), arguments.get("pinned", False))

    def _check_rates(self, rates: Any) -> None:
        known = self._learner.rates
        if not isinstance(rates, dict) or not rates or not set(rates) <= set(known) or None in rates.values():
            raise RequestRefused(422, "bad_argument", f"rates names some of {', '.join(known)}, each with a number")
        try:
            RatesConfig.model_validate(rates, strict=True)
        except ValueError:
            raise RequestRefused(422, "bad_argument", "a rate is a number from 0 to 1") from None

    def _embed(self, call: Call) -> None:
        if self._stopping:
            raise RequestRefused(503, "stopping", "the worker ends")
        given_up_s, last_s = time.monotonic() + EMBED_S, time.monotonic() + EMBED_ALL_S
        told = call.request.get("patches")
        if told is not None:
            if not isinstance(told, list) or not 1 <= len(told) <= MAX_PATCHES:
                raise RequestRefused(422, "bad_argument", f"patches is a list of 1 to {MAX_PATCHES}")
            embed = _Embed(call, given_up_s, last_s, [], deque(_patch(patch) for patch in told))
        else:
            z = _vector(call.request.get("z"), self._learner.config.features)
            embed = _Embed(call, given_up_s, last_s, [z], deque())
        with self._lock:
            (self._patches if embed.patches else self._embeds).append(embed)
        self._wake()

    # In the learning thread.

    def applied(self, entry: int, value: dict[str, Any]) -> None:
        """A command was carried out, and what it came to is durable."""
        with self._lock:
            waiting = self._waiting.pop(entry, None)
        if waiting is None:
            return
        if value["ok"]:
            waiting.call.answer({"id": entry, "applied": True} | value)
        else:
            waiting.call.refuse(value["status"], value["code"], value["detail"])

    def serve(self, *, idle: bool) -> None:
        """Embed what waits: every z, but a patch only where no fixation waits, one at a time; a moment to who asks."""
        self._teller.serve()
        for _ in range(len(self._embeds)):
            self._serve_one(self._embeds)
        if idle:
            self._serve_one(self._patches)
        if self._patches:
            self._wake()

    def _serve_one(self, line: deque[_Embed]) -> None:
        """Look at one picture of the first call; once all of its are seen, embed them, all by the weights of now."""
        with self._lock:
            if not line:
                return  # given up meanwhile
            embed = line.popleft()
        patches = bool(embed.patches)
        if patches:
            embed.seen.append(self._features.of_patch(embed.patches.popleft()))
        if embed.patches:
            embed.given_up_s = min(embed.last_s, time.monotonic() + EMBED_S)
            with self._lock:
                if not self._stopping:
                    line.appendleft(embed)
                    return
            embed.call.refuse(503, "stopping", "the worker ends")
            return
        try:
            embeddings = [self._learner.embed(z).tolist() for z in embed.seen]
        except ModelError as error:
            embed.call.refuse(422, "bad_argument", str(error))
        else:
            embed.call.answer({"embeddings": embeddings} if patches else {"embedding": embeddings[0]})


def _check_kept(label: Any, pinned: Any) -> None:
    if not (label is None or (isinstance(label, str) and len(label) <= 256)) or not isinstance(pinned, bool):
        raise RequestRefused(422, "bad_argument", "label is a text of at most 256 characters, pinned true or false")


def _given_up(line: deque[_Embed], now_s: float) -> list[_Embed]:
    """Takes those out of ``line`` that have waited long enough."""
    late = [embed for embed in line if embed.given_up_s <= now_s]
    for embed in late:
        line.remove(embed)
    return late


def _vector(numbers: Any, size: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    plain = isinstance(numbers, list) and all(type(number) in (int, float) for number in numbers)
    if plain and len(numbers) == size:
        with contextlib.suppress(OverflowError), np.errstate(over="ignore"):
            z = np.array(numbers, dtype=np.float64).astype(np.float32)
            if np.isfinite(z).all():
                return z
    raise RequestRefused(422, "bad_argument", f"z must be {size} finite numbers")


def _patch(patch: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
    told = f"patch must be {{height: {SHAPE[0]}, width: {SHAPE[1]}, rgb: base64 of height x width x 3 bytes}}"
    if not isinstance(patch, dict) or (patch.get("height"), patch.get("width")) != SHAPE[:2]:
        raise RequestRefused(422, "bad_argument", told)
    try:
        data = base64.b64decode(patch.get("rgb", ""), validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise RequestRefused(422, "bad_argument", told) from None
    if len(data) != SHAPE[0] * SHAPE[1] * SHAPE[2]:
        raise RequestRefused(422, "bad_argument", told)
    return np.frombuffer(data, dtype=np.uint8).reshape(SHAPE)
