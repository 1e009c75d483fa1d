"""What can go wrong before the wire.

Every error is one line for a person: what, which file, stream or address, and the way out. ``code`` names
it for a program, ``exit_code`` is what ``rjepa stream`` ends with: 2 input or option refused, 3 spool refused
or in use, 4 worker out of reach, 1 anything else.
"""

from __future__ import annotations


class ClientError(Exception):
    """The base of every error of the clients; an error of this class itself has no better name."""

    code: str = "client_error"
    exit_code: int = 1


class OptionError(ClientError):
    """An option, an environment variable or their combination was refused."""

    code = "bad_option"
    exit_code = 2


class SourceError(ClientError):
    """A recording or a video can't be used: missing, unreadable, empty, or without what is needed."""

    code = "bad_source"
    exit_code = 2


class UnitsUnknown(SourceError):
    """Nothing says how many degrees a pixel is, or what unit a column has."""

    code = "units_unknown"


class BadFixation(ClientError, ValueError):
    """A fixation offered by a script is not one: wrong shape, not finite, off the frame."""

    code = "bad_fixation"
    exit_code = 2


class SpoolInUse(ClientError):
    """Another client holds the spool folder."""

    code = "spool_in_use"
    exit_code = 3


class SpoolRefused(ClientError):
    """The spool folder can't be used: not writable, damaged, or it holds another stream's fixations."""

    code = "spool_refused"
    exit_code = 3


class WorkerUnreachable(ClientError):
    """No worker answered in the time it was given, or the address is none."""

    code = "unreachable"
    exit_code = 4


class KeyRefused(ClientError):
    """The key file can't be used, or the worker does not know its key for this stream."""

    code = "unauthorized"
    exit_code = 2


class Fenced(ClientError):
    """Another client has claimed the stream since."""

    code = "fenced"


class StreamConflict(ClientError):
    """The stream holds other fixations under the numbers this recording gives its own."""

    code = "conflict"


class Refused(ClientError):
    """The worker refused a message for good, or answered what the contract does not allow."""

    code = "refused"


class SenderClosed(ClientError):
    """The sender was closed, or ended by an earlier error, and takes nothing more."""

    code = "closed"


class ApiError(ClientError):
    """The HTTP interface refused a call, or does not answer: then ``status`` is None and ``code`` unreachable.

    ``code`` is the short name to program against, ``detail`` says what was wrong and the way out.
    """

    def __init__(self, status: int | None, code: str, detail: str) -> None:
        super().__init__(f"{detail} ({code if status is None else f'{status} {code}'})")
        self.status = status
        self.code = code
        self.detail = detail
        self.exit_code = 4 if status is None else 1
