"""Every refusal of the interface: its code, its status, when it comes, and which calls may answer with it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Refusal:
    """``code`` always comes with ``status``; ``said`` is when."""

    code: str
    status: int
    said: str


_ALL = (
    Refusal("bad_request", 400, "bytes that are no HTTP, or a body that is no JSON"),
    Refusal("unauthorized", 401, "no token, or one that is not known"),
    Refusal("forbidden", 403, "a read token on a changing call"),
    Refusal("foreign_host", 403, "the Host header names another host than is allowed"),
    Refusal("foreign_origin", 403, "a page of another site asks, or a change by cookie does not name its page"),
    Refusal("not_found", 404, "there is no such path"),
    Refusal("unknown_stream", 404, "there is no stream of that name"),
    Refusal("unknown_checkpoint", 404, "there is no checkpoint of that id"),
    Refusal("unknown_fixation", 404, "the stream has no fixation of that number"),
    Refusal("unknown_timeline", 404, "there is no timeline of that number"),
    Refusal("unknown_event", 404, "there is no event of that id yet"),
    Refusal("no_embedding", 404, "nothing of the stream was learned yet"),
    Refusal("patch_dropped", 404, "the patch is not kept"),
    Refusal("method_not_allowed", 405, "the path has other methods, as the header Allow says"),
    Refusal("not_acceptable", 406, "it is not told in a form the header Accept names; `offered` lists those it is"),
    Refusal("too_slow", 408, "head or body took more than 20 s"),
    Refusal("checkpoint_bad", 409, "the checkpoint is damaged"),
    Refusal("last_checkpoint", 409, "it is the only good checkpoint there is"),
    Refusal("refused", 409, "its turn came and it could not be carried out"),
    Refusal("diagnostics_off", 409, "the worker runs without diagnostics"),
    Refusal("history_gone", 409, "the stream was deleted while its records were read"),
    Refusal("events_gone", 410, "events since that one are not kept any more"),
    Refusal("too_large", 413, "a body over 1 MiB"),
    Refusal("unsupported_media_type", 415, "the body is not declared as what is taken"),
    Refusal("invalid", 422, "a parameter or the body is not what is asked for; `errors` may say where"),
    Refusal("bad_argument", 422, "the worker can't do it with these values"),
    Refusal("bad_patch", 422, "a picture is not what it is said to be"),
    Refusal("too_many_requests", 429, "more than request_rate from one address; Retry-After says when"),
    Refusal("internal", 500, "a fault of the program; its log says more"),
    Refusal("too_many_connections", 503, "more connections than http_connections"),
    Refusal("too_many_event_streams", 503, "more listeners to events than event_streams"),
    Refusal("busy", 503, "too many calls wait already, or the learner had no moment"),
    Refusal("not_ready", 503, "not yet, or not now; `reasons` lists why"),
    Refusal("worker_unreachable", 503, "no worker answers"),
    Refusal("stopping", 503, "the worker ends"),
    Refusal("storage_failed", 503, "the database can't be read or written"),
    Refusal("storage_full", 503, "there is no room for it"),
    Refusal("directory_refused", 503, "there is no database yet"),
    Refusal("pending", 504, "journalled and will be done; don't ask again"),
)
REFUSALS = {one.code: one for one in _ALL}

HEALTH = ("bad_request", "foreign_host", "foreign_origin", "too_slow", "too_large", "internal", "too_many_connections")
LOOK = (*HEALTH, "unauthorized", "too_many_requests")
READ = (*LOOK, "invalid", "storage_failed", "directory_refused")
ASK = (*LOOK, "busy", "worker_unreachable", "stopping")
CHANGE = (
    *ASK,
    "forbidden",
    "unsupported_media_type",
    "invalid",
    "bad_argument",
    "refused",
    "storage_failed",
    "storage_full",
)
OF_STREAM = (*READ, "not_found", "unknown_stream")
OF_CHECKPOINT = (*LOOK, "not_found", "invalid", "unknown_checkpoint", "checkpoint_bad")

CALLS: dict[str, tuple[str, ...]] = {
    "GET /livez": HEALTH,
    "GET /readyz": (*HEALTH, "not_ready", "worker_unreachable"),
    "GET /metrics": LOOK,
    "GET /v1/model": (*LOOK, "storage_failed", "directory_refused"),
    "PATCH /v1/model": (*CHANGE, "directory_refused"),
    "GET /v1/streams": READ,
    "GET /v1/streams/{stream}": OF_STREAM,
    "POST /v1/streams/{stream}/reset": (*CHANGE, "directory_refused", "not_found", "unknown_stream"),
    "DELETE /v1/streams/{stream}": (*CHANGE, "directory_refused", "not_found", "unknown_stream"),
    "GET /v1/streams/{stream}/embedding": (*OF_STREAM, "no_embedding"),
    "GET /v1/streams/{stream}/records": (*OF_STREAM, "unknown_timeline", "not_acceptable", "history_gone", "busy"),
    "GET /v1/streams/{stream}/loss": (*OF_STREAM, "busy"),
    "GET /v1/streams/{stream}/trajectory": (*OF_STREAM, "busy"),
    "GET /v1/streams/{stream}/fixations/{seq}/patch": (*OF_STREAM, "unknown_fixation", "patch_dropped"),
    "POST /v1/embed": (*ASK, "unsupported_media_type", "invalid", "bad_patch", "bad_argument"),
    "GET /v1/diagnostics/representation": (*ASK, "invalid", "bad_argument", "unknown_stream", "diagnostics_off"),
    "GET /v1/diagnostics/gradient": (*ASK, "invalid", "bad_argument", "unknown_stream", "diagnostics_off"),
    "GET /v1/events": (*READ, "unknown_stream", "unknown_event", "events_gone", "too_many_event_streams"),
    "GET /v1/checkpoints": (*LOOK, "invalid", "unknown_checkpoint"),
    "POST /v1/checkpoints": (*CHANGE, "pending"),
    "GET /v1/checkpoints/{checkpoint}": OF_CHECKPOINT,
    "GET /v1/checkpoints/{checkpoint}/download": OF_CHECKPOINT,
    "POST /v1/checkpoints/{checkpoint}/restore": (
        *CHANGE,
        "not_found",
        "unknown_checkpoint",
        "checkpoint_bad",
        "pending",
    ),
    "PATCH /v1/checkpoints/{checkpoint}": (*CHANGE, "not_found", "unknown_checkpoint", "checkpoint_bad", "pending"),
    "DELETE /v1/checkpoints/{checkpoint}": (*CHANGE, "not_found", "unknown_checkpoint", "last_checkpoint", "pending"),
}
"""Of each call the codes it may refuse with."""
