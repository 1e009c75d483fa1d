"""Messages of real traffic, damaged in every way a wire, a bug or an enemy can think of. One seed, one sequence."""

from __future__ import annotations

import json
import random
import struct
import zlib
from collections.abc import Callable
from typing import Any

from clients import wire

Frames = list[bytes]


class Mutator:
    """Draws damaged messages from ``seeds``; each passes through one to three of the changes below."""

    def __init__(self, seed: int, seeds: list[Frames]) -> None:
        self._random = random.Random(seed)
        self._seeds = seeds
        self._frame_changes: list[Callable[[Frames], Frames]] = [
            self._dropped, self._doubled, self._swapped, self._cut, self._grown, self._emptied, self._noise,
            self._flipped, self._many, self._other_kind, self._other_version,
        ]  # fmt: skip
        self._body_changes: list[Callable[[bytes], bytes]] = [
            self._key_gone, self._key_renamed, self._key_more, self._value, self._value, self._value, self._twice,
            self._literal, self._deep, self._huge_number, self._not_utf8, self._half, self._recoded, self._no_object,
        ]  # fmt: skip
        self._patch_changes: list[Callable[[bytes], bytes]] = [
            self._bytes_cut, self._bytes_flipped, self._png_bomb, self._jpeg_bomb, self._two_pictures, self._large,
        ]  # fmt: skip

    def message(self) -> Frames:
        """The next message: one frame at least, none of them large enough for ZeroMQ to cut the connection."""
        frames = list(self._random.choice(self._seeds))
        for _ in range(self._random.choice((1, 1, 1, 2, 3))):
            kind = self._random.random()
            if kind < 0.3 or len(frames) < 3:
                frames = self._random.choice(self._frame_changes)(frames)
            elif kind < 0.8 or len(frames) < 4:
                frames[2] = self._random.choice(self._body_changes)(frames[2])
            else:
                frames[3] = self._random.choice(self._patch_changes)(frames[3])
        return frames or [b""]

    # --- frames ----------------------------------------------------------------------------------------------------

    def _at(self, frames: Frames) -> int:
        return self._random.randrange(len(frames)) if frames else 0

    def _dropped(self, frames: Frames) -> Frames:
        at = self._at(frames)
        return frames[:at] + frames[at + 1 :]

    def _doubled(self, frames: Frames) -> Frames:
        at = self._at(frames)
        return frames[:at] + frames[at : at + 1] + frames[at:]

    def _swapped(self, frames: Frames) -> Frames:
        self._random.shuffle(frames)
        return frames

    def _cut(self, frames: Frames) -> Frames:
        return self._replaced(frames, lambda frame: frame[: self._random.randrange(len(frame) + 1)])

    def _grown(self, frames: Frames) -> Frames:
        return self._replaced(frames, lambda frame: frame + self._random.randbytes(self._random.choice((1, 7, 300))))

    def _emptied(self, frames: Frames) -> Frames:
        return self._replaced(frames, lambda frame: b"")

    def _noise(self, frames: Frames) -> Frames:
        return self._replaced(frames, lambda frame: self._random.randbytes(self._random.randrange(64)))

    def _flipped(self, frames: Frames) -> Frames:
        return self._replaced(frames, self._bytes_flipped)

    def _many(self, frames: Frames) -> Frames:
        return frames + [b""] * self._random.choice((1, 2, 50, 3000))

    def _other_kind(self, frames: Frames) -> Frames:
        kinds = [*(kind.encode() for kind in wire.KINDS), b"HELLO", b"hello ", b"\xff", b"", b"k" * 500]
        return [*frames[:1], self._random.choice(kinds), *frames[2:]]

    def _other_version(self, frames: Frames) -> Frames:
        return [self._random.choice((b"rjepa2", b"rjepa", b"rjepa1\n", b"GET / HTTP/1.1", b"")), *frames[1:]]

    def _replaced(self, frames: Frames, change: Callable[[bytes], bytes]) -> Frames:
        at = self._at(frames)
        return [change(frame) if n == at else frame for n, frame in enumerate(frames)]

    # --- JSON ------------------------------------------------------------------------------------------------------

    def _some_object(self, body: bytes) -> tuple[Any, dict[str, Any]]:
        """The whole, and an object somewhere in it (a dict of its own where there is none)."""
        try:
            whole = json.loads(body)
        except (ValueError, RecursionError):
            whole = {}
        inside = [whole] if isinstance(whole, dict) else [{}]
        inside += [value for value in inside[0].values() if isinstance(value, dict)]
        return whole, self._random.choice(inside)

    def _changed(self, body: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
        whole, part = self._some_object(body)
        change(part)
        return json.dumps(whole).encode()

    def _key_gone(self, body: bytes) -> bytes:
        return self._changed(body, lambda part: part and part.pop(self._random.choice(list(part))))

    def _key_renamed(self, body: bytes) -> bytes:
        def rename(part: dict[str, Any]) -> None:
            if part:
                name = self._random.choice(list(part))
                part[self._random.choice((name.upper(), name + " ", "\ud800", "\u0000", "__class__"))] = part.pop(name)

        return self._changed(body, rename)

    def _key_more(self, body: bytes) -> bytes:
        return self._changed(body, lambda part: part.update({self._word(): self._nasty()}))

    def _value(self, body: bytes) -> bytes:
        def replace(part: dict[str, Any]) -> None:
            if part:
                part[self._random.choice(list(part))] = self._nasty()

        return self._changed(body, replace)

    def _word(self) -> str:
        words = (
            "extra",
            "",
            "stream",
            "\ud83d",
            "é",
            "a" * 5000,
            "../../etc/passwd",
            "kept\n",
            ".hidden",
            "%s%n",
            "\u202e",
        )
        return self._random.choice(words)

    def _nasty(self) -> Any:
        values = (
            None, True, False, 0, -1, 1, 0.5, -0.0, 2**31, 2**53 - 1, 2**53, 2**63, 2**64, -(2**63), 10**300, 1e308,
            5e-324, -1e308, "", "0", "1", "raw", "png", "jpeg", "learned", [], [[]], {}, {"x": 1}, [1, 2, 3],
        )  # fmt: skip
        return self._word() if self._random.random() < 0.25 else self._random.choice(values)

    def _twice(self, body: bytes) -> bytes:
        return body[:-1] + b',"stream":"kept","seq":' + str(self._random.choice((0, -1, 10**6, 3))).encode() + b"}"

    def _literal(self, body: bytes) -> bytes:
        literal = self._random.choice((b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e999", b"0x10", b"01", b"'a'"))
        return (
            body.replace(b":", b":" + literal + b",", 1) if self._random.random() < 0.2 else self._number(body, literal)
        )

    def _number(self, body: bytes, number: bytes) -> bytes:
        """``number`` in place of some value of the top level."""
        whole, _ = self._some_object(body)
        names = list(whole) if isinstance(whole, dict) and whole else ["seq"]
        marked = (whole if isinstance(whole, dict) else {}) | {self._random.choice(names): "\u0001here"}
        return json.dumps(marked).encode().replace(b'"\\u0001here"', number)

    def _deep(self, body: bytes) -> bytes:
        depth = self._random.choice((10, 900, 5_000, 100_000))
        opened, closed = self._random.choice(((b"[", b"]"), (b'{"a":', b"}")))
        return self._number(body, opened * depth + b"0" + closed * self._random.choice((0, depth)))

    def _huge_number(self, body: bytes) -> bytes:
        digits = self._random.choice((20, 400, 4_000, 5_000, 100_000))
        return self._number(
            body, self._random.choice((b"", b"-")) + b"9" * digits + self._random.choice((b"", b".5", b"e9"))
        )

    def _not_utf8(self, body: bytes) -> bytes:
        at = self._random.randrange(len(body) + 1)
        return (
            body[:at]
            + self._random.choice((b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\x00", b"\xf4\x90\x80\x80"))
            + body[at:]
        )

    def _half(self, body: bytes) -> bytes:
        return body[: self._random.randrange(len(body) + 1)]

    def _recoded(self, body: bytes) -> bytes:
        text = body.decode("utf-8", "replace")
        return self._random.choice(
            (text.encode("utf-16"), b"\xef\xbb\xbf" + body, body + body, text.encode("utf-32-be"))
        )

    def _no_object(self, body: bytes) -> bytes:
        return self._random.choice((b"[" + body + b"]", b"null", b"7", b'"text"', b"true", b"[]", b" "))

    # --- patches ---------------------------------------------------------------------------------------------------

    def _bytes_cut(self, data: bytes) -> bytes:
        return data[: self._random.randrange(len(data) + 1)]

    def _bytes_flipped(self, data: bytes) -> bytes:
        damaged = bytearray(data)
        for _ in range(self._random.choice((1, 1, 5, 50))):
            if damaged:
                damaged[self._random.randrange(len(damaged))] = self._random.randrange(256)
        return bytes(damaged)

    def _png_bomb(self, data: bytes) -> bytes:
        return png_bomb(*self._random.choice(((30_000, 30_000), (2**31 - 1, 2**31 - 1), (50, 60_000), (0, 0))))

    def _jpeg_bomb(self, data: bytes) -> bytes:
        return jpeg_saying(data, *self._random.choice(((65_500, 65_500), (50, 65_500), (0, 0))))

    def _two_pictures(self, data: bytes) -> bytes:
        return data + data if self._random.random() < 0.5 else data[:33] + png_bomb(30_000, 30_000)[8:] + data[33:]

    def _large(self, data: bytes) -> bytes:
        size = wire.MAX_FRAME_BYTES + 1 if self._random.random() < 0.02 else 7_501
        return data + bytes(max(0, size - len(data)))


def png_bomb(width: int, height: int) -> bytes:
    """A PNG of about 20 kB that promises so many pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", _ZEROS) + chunk(b"IEND", b"")


_ZEROS = zlib.compress(bytes(20_000_000), 9)


def jpeg_saying(data: bytes, height: int, width: int) -> bytes:
    """``data``, its JPEG header (if it has one) changed to another size."""
    at = data.find(b"\xff\xc0")
    if not data.startswith(b"\xff\xd8") or at < 0:
        return b"\xff\xd8\xff\xc0\x00\x11\x08" + struct.pack(">HH", height, width) + data
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]
