"""Every error of the service, with what it means for the one who waits.

``code`` is the short name that logs and answers carry, ``exit_code`` what a command ends with: 2 the call
was refused (settings, arguments, input), 3 the data directory can't be used, 4 an address is taken or can't
be reached, 1 anything else. The message is one line: what, which id or path, and the way out.
"""

from __future__ import annotations

from clients.wire import ErrorCode


class ServiceError(Exception):
    """Something the service can't or won't do."""

    code = "service_error"
    exit_code = 1


class SettingsError(ServiceError):
    """A setting has a wrong name or a wrong value. Fatal; change the setting."""

    code = "bad_setting"
    exit_code = 2


class CalibrationSourceError(ServiceError):
    """Nothing to calibrate on could be read. Fatal; name another file or folder."""

    code = "bad_calibration_source"
    exit_code = 2


class ExperimentRefused(ServiceError):
    """An experiment can't be run as asked, or its rows can't be kept. Fatal; the message names the way out."""

    code = "experiment_refused"
    exit_code = 2


class BenchRefused(ServiceError):
    """A benchmark can't be run as asked, or its numbers can't be kept. Fatal; the message names the way out."""

    code = "bench_refused"
    exit_code = 2


class LearnRefused(ServiceError):
    """What was seen can't be learned offline as asked. Fatal; the message names the way out."""

    code = "learn_refused"
    exit_code = 2


class CopyRefused(ServiceError):
    """A data directory can't be copied, or learned again, as asked. Fatal; the message names the way out."""

    code = "copy_refused"
    exit_code = 2


class AccessRefused(ServiceError):
    """An address may not be opened without keys or tokens. Fatal; make them or bind to loopback."""

    code = "access_refused"
    exit_code = 2


class DirectoryRefused(ServiceError):
    """The data directory was made otherwise, or is damaged. Fatal; the message names the difference."""

    code = "directory_refused"
    exit_code = 3


class DirectoryInUse(ServiceError):
    """Another worker holds the data directory. Retry once it has ended."""

    code = "directory_in_use"
    exit_code = 3


class AddressInUse(ServiceError):
    """An address can't be bound. Fatal; name another one or end the program that holds it."""

    code = "address_in_use"
    exit_code = 4


class WorkerUnreachable(ServiceError):
    """Nothing answers on the worker's control socket. Retry."""

    code = "worker_unreachable"
    exit_code = 4


class StorageFailed(ServiceError):
    """The disk or the database did not take a write. Nothing of the write is there; retry."""

    code = "storage_failed"
    wire_code = ErrorCode.STORAGE_FAILED


class DatabaseDamaged(StorageFailed):
    """SQLite finds the database malformed. Fatal; restore the directory from a backup."""

    exit_code = 3


class StorageFull(StorageFailed):
    """There is no room for a write. Nothing of the write is there; retry once there is room."""

    code = "storage_full"
    wire_code = ErrorCode.STORAGE_FULL


class CheckpointBad(ServiceError):
    """A checkpoint is damaged or of another configuration. The one before it is used."""

    code = "checkpoint_bad"


class HistoryGone(ServiceError):
    """A stream was deleted while its records were being read: what was told of it is no whole. Ask again."""

    code = "history_gone"


class RequestRefused(ServiceError):
    """A command of the HTTP interface can't be carried out; ``status`` is the HTTP status to answer with."""

    code = "refused"

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
