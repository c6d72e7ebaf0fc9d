"""What can go wrong, as exceptions that keep the server's own words and its remedy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import wire

if TYPE_CHECKING:
    from .values import Failure


class Error(Exception):
    """Something failed.

    ``code`` is gRPC's (``"NOT_FOUND"``; empty where no call was involved), ``reason`` and
    ``metadata`` are what the server tells programs, ``remedy`` is what to do about it.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        remedy: str = "",
        retry_after: float | None = None,
        fields: tuple[Field, ...] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = reason
        self.metadata: dict[str, str] = dict(metadata or {})
        self.remedy = remedy
        #: Seconds after which the server would be asked again; None where it did not say.
        self.retry_after = retry_after
        #: What is wrong with the request, field by field.
        self.fields = fields

    def __str__(self) -> str:
        if self.remedy and self.remedy not in self.message:
            return f"{self.message} ({self.remedy})"
        return self.message


@dataclass(frozen=True)
class Field:
    """A field of a request that is wrong."""

    name: str
    problem: str


class InvalidArgument(Error, ValueError):
    """The request is wrong; ``fields`` says where."""


class NotFound(Error, LookupError):
    """There is no such thing."""


class AlreadyExists(Error):
    """Something else has the name."""


class FailedPrecondition(Error):
    """It cannot be done as things stand."""


class EditRejected(FailedPrecondition):
    """An edit did not pass its gates."""

    @property
    def gates(self) -> str:
        """The gates that it failed, in words."""
        return self.message


class StatisticsMissing(FailedPrecondition):
    """An edit needs key statistics that are not there: see ``Model.collect_statistics``."""

    @property
    def layer(self) -> int | None:
        """The layer that lacks them."""
        return int(self.metadata["layer"]) if "layer" in self.metadata else None

    @property
    def tokens(self) -> int | None:
        """How many tokens would do."""
        return int(self.metadata["tokens"]) if "tokens" in self.metadata else None


class Aborted(Error):
    """Something else happened at the same time."""


class RefMoved(Aborted):
    """Somebody moved the ref meanwhile: read it and decide again. The message says who."""


class OutOfRange(Error):
    """A read begins past the end."""


class DataLoss(Error):
    """Stored bytes are damaged."""


class PermissionDenied(Error, PermissionError):
    """The caller's role does not allow it."""

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles that may."""
        said = self.metadata.get("roles", "")
        return tuple(role for role in said.replace(",", " ").split() if role)


class Unauthenticated(Error, PermissionError):
    """The server does not know who calls."""


class TooMany(Error):
    """There is no room, or too much was asked; ``retry_after`` says when to ask again."""


class Unavailable(Error, ConnectionError):
    """The server does not answer."""


class Timeout(Error, TimeoutError):
    """It took longer than it was given."""


class Internal(Error):
    """The server failed in a way that is not the caller's doing."""


class NoServer(Error, ConnectionError):
    """There is no server to talk to, or no way to it that is allowed."""


class JobFailed(Error):
    """A job ended without all its results. Those that it has can be read from ``job``."""

    def __init__(self, message: str, job: Any, failures: tuple[Failure, ...] = ()) -> None:
        super().__init__(message)
        #: The job.
        self.job = job
        #: The first failures of its units.
        self.failures = failures


class AuditBroken(Error):
    """The audit log is not what it says it is."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("the audit log does not hold: " + "; ".join(problems))
        #: What is wrong, the first first.
        self.problems = problems


#: The class of every reason that a server gives. A test compares the list with the server's.
REASONS: dict[str, type[Error]] = {
    "INVALID_FIELD": InvalidArgument,
    "INVALID_PAGE_TOKEN": InvalidArgument,
    "DIGEST_MISMATCH": InvalidArgument,
    "SIZE_MISMATCH": InvalidArgument,
    "NOT_FOUND": NotFound,
    "NAME_TAKEN": AlreadyExists,
    "REQUEST_ID_REUSED": AlreadyExists,
    "WORKER_ID_TAKEN": AlreadyExists,
    "OBJECT_MISSING": FailedPrecondition,
    "REF_IS_TAG": FailedPrecondition,
    "EDIT_NOT_IN_VERSION": FailedPrecondition,
    "EDIT_IN_VERSION": FailedPrecondition,
    "EDIT_REJECTED": EditRejected,
    "EDIT_UNMEASURED": FailedPrecondition,
    "LEASE_NOT_LIVE": FailedPrecondition,
    "STATISTICS_MISSING": StatisticsMissing,
    "TOO_MANY_STATISTICS": FailedPrecondition,
    "JOB_NOT_DONE": FailedPrecondition,
    "VERSION_INCOMPLETE": FailedPrecondition,
    "PROTOCOL_VERSION": FailedPrecondition,
    "BUCKET_REFUSED": FailedPrecondition,
    "WRONG_OFFSET": Aborted,
    "OBJECT_INCOMPLETE": Aborted,
    "OBJECT_BUSY": Aborted,
    "STREAM_REPLACED": Aborted,
    "ETAG_MISMATCH": RefMoved,
    "OFFSET_PAST_END": OutOfRange,
    "TOO_MUCH_OPEN": TooMany,
    "TOO_OFTEN": TooMany,
    "TOO_MUCH_HELD": TooMany,
    "DISK_FULL": TooMany,
    "QUOTA_EXCEEDED": TooMany,
    "STORE_OCCUPIED": Unavailable,
    "BUCKET_AWAY": Unavailable,
    "NOT_SERVING": Unavailable,
    "STORED_DATA_DAMAGED": DataLoss,
    "AUDIT_LOG_DAMAGED": DataLoss,
    "UNAUTHENTICATED": Unauthenticated,
    "PERMISSION_DENIED": PermissionDenied,
    "INTERNAL": Internal,
}

#: The class of a code, for what comes without a reason: from a proxy, or from gRPC itself.
CODES: dict[str, type[Error]] = {
    "INVALID_ARGUMENT": InvalidArgument,
    "NOT_FOUND": NotFound,
    "ALREADY_EXISTS": AlreadyExists,
    "FAILED_PRECONDITION": FailedPrecondition,
    "ABORTED": Aborted,
    "OUT_OF_RANGE": OutOfRange,
    "RESOURCE_EXHAUSTED": TooMany,
    "UNAVAILABLE": Unavailable,
    "CANCELLED": Unavailable,
    "DATA_LOSS": DataLoss,
    "UNAUTHENTICATED": Unauthenticated,
    "PERMISSION_DENIED": PermissionDenied,
    "DEADLINE_EXCEEDED": Timeout,
    "INTERNAL": Internal,
}

_DETAILS = "grpc-status-details-bin"


def of_call(error: Any) -> Error:
    """The exception of a call that failed, from gRPC's."""
    code = error.code().name if error.code() is not None else "UNKNOWN"
    message = error.details() or f"the call failed: {code}"
    reason, metadata, retry_after = "", dict[str, str](), None
    fields: list[Field] = []
    for key, value in error.trailing_metadata() or ():
        if key != _DETAILS:
            continue
        for detail in wire.rpc.Status.FromString(value).details:
            kind = detail.type_url.rpartition("/")[2]
            if kind == "google.rpc.ErrorInfo":
                info = wire.rpc.ErrorInfo.FromString(detail.value)
                reason, metadata = info.reason, dict(info.metadata)
            elif kind == "google.rpc.BadRequest":
                for it in wire.rpc.BadRequest.FromString(detail.value).field_violations:
                    fields.append(Field(it.field, it.description))
            elif kind == "google.rpc.RetryInfo":
                delay = wire.rpc.RetryInfo.FromString(detail.value).retry_delay
                retry_after = delay.seconds + delay.nanos / 1e9
    kind_of = REASONS.get(reason) or CODES.get(code, Error)
    remedy = metadata.pop("remedy", "")
    return kind_of(
        message,
        code=code,
        reason=reason,
        metadata=metadata,
        remedy=remedy,
        retry_after=retry_after,
        fields=tuple(fields),
    )
