"""Palimpsest for Python: trace where a language model keeps a fact, rewrite it, take it back.

    import palimpsest as pal

    with pal.connect() as p:                 # a server of one's own, or of palimpsest.toml
        sweep = p.model("gpt2").trace("The Eiffel Tower is in", subject="The Eiffel Tower")
        sweep.grid(kind="mlp").peak

``aconnect`` gives the same names, to be awaited. ``connect("http://HOST:PORT")`` is the coordinator
of a cluster, ``palimpsest serve``.
"""

from __future__ import annotations

import os
from typing import Any

from . import wire
from ._async.audit import AsyncAudit
from ._async.client import AsyncClient
from ._async.draft import AsyncDraft
from ._async.history import AsyncRef
from ._async.job import AsyncJob
from ._async.jobs import (
    AsyncCompletionJob,
    AsyncEditJob,
    AsyncEvaluation,
    AsyncMassEditJob,
    AsyncStatisticsJob,
    AsyncSweep,
)
from ._async.model import AsyncModel
from ._sync.audit import Audit, Proof, Report
from ._sync.client import Client
from ._sync.draft import Draft
from ._sync.history import RefHandle
from ._sync.job import Job
from ._sync.jobs import (
    CompletionJob,
    EditJob,
    Evaluation,
    MassEditJob,
    StatisticsJob,
    Sweep,
)
from ._sync.model import Model
from .averages import Averages, Mean, Site
from .completions import Completions
from .errors import (
    Aborted,
    AlreadyExists,
    AuditBroken,
    DataLoss,
    EditRejected,
    Error,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    JobFailed,
    NoServer,
    NotFound,
    OutOfRange,
    PermissionDenied,
    RefMoved,
    StatisticsMissing,
    Timeout,
    TooMany,
    Unauthenticated,
    Unavailable,
)
from .evaluation import Measures
from .facts import (
    Choice,
    Fact,
    Facts,
    Query,
    Record,
    Rewrite,
    Test,
    read_records,
    read_rewrites,
)
from .manifests import Manifest, verify_manifest
from .paths import Paths
from .questions import Examples, read_choices, read_mquake
from .receipts import Receipt, verify_receipt
from .results import (
    Checked,
    Completion,
    Evaluated,
    Failure,
    Grid,
    Measured,
    Peak,
    Probe,
    Reading,
)
from .roles import ROLES
from .settings import Settings
from .settings import read as _settings
from .summary import SweepSummary
from .values import (
    AuditEntry,
    Checkpoint,
    Diff,
    Edit,
    JobSummary,
    ModelInfo,
    Plan,
    Progress,
    Ref,
    Statistics,
    Status,
    Task,
    Version,
    Worker,
)
from .verification import Miss, Missed, Verification, Verified
from .version import __version__


def connect(
    server: str | None = None,
    *,
    token: str | None = None,
    token_file: str | os.PathLike[str] | None = None,
    ca: str | os.PathLike[str] | None = None,
    certificate: str | os.PathLike[str] | None = None,
    key: str | os.PathLike[str] | None = None,
    user: str | None = None,
    insecure: bool | None = None,
    store: str | os.PathLike[str] | None = None,
    console: str | None = None,
    config: str | os.PathLike[str] | None = None,
    patience: float = 60.0,
) -> Client:
    """Connects to a coordinator. Where none is named, to a server of one's own: ``palimpsest
    local`` is joined where it has the store, or started, and ends with this process.

    What is not given is read as the command line reads it: from ``palimpsest.toml`` and
    ``PALIMPSEST__CLIENT__*``.

    Args:
        server: its address: ``http://HOST:PORT``, ``https://HOST:PORT``, ``unix:PATH``; of several
            that follow one log those of all, separated by commas.
        token, token_file: what it is shown; over TLS, or with ``insecure`` on this machine alone.
        ca: the authority that vouches for it, a PEM file.
        certificate, key: what is shown in place of a token, PEM files.
        user: who asks, where the coordinator does not ask who calls.
        store: the folder of everything that a server of one's own keeps; by default that of the
            command line.
        console: where the coordinator's console is, for ``job.url``.
        config: the file of settings, in place of ``palimpsest.toml``.
        patience: seconds that a coordinator that does not answer is waited for.

    Raises:
        NoServer: nobody answers, or there is no program to start one by.
        Unauthenticated: the coordinator does not know who calls.
    """
    given: dict[str, Any] = {
        "server": server,
        "token": token,
        "token_file": token_file,
        "ca": ca,
        "certificate": certificate,
        "key": key,
        "user": user,
        "insecure": insecure,
        "store": store,
        "console": console,
    }
    client = Client(_settings(config=config, **given), patience=patience)
    client.open()
    return client


def aconnect(server: str | None = None, *, patience: float = 60.0, **given: Any) -> AsyncClient:
    """The same for code that awaits: ``async with aconnect(...) as p``. Arguments as ``connect``;
    it connects when it is entered."""
    known = set(connect.__kwdefaults__ or {})
    unknown = sorted(set(given) - known)
    if unknown:
        raise TypeError(f"aconnect() got an unexpected argument {unknown[0]!r}")
    return AsyncClient(_settings(server=server, **given), patience=patience)


__all__ = [
    "ROLES",
    "Aborted",
    "AlreadyExists",
    "AsyncAudit",
    "AsyncClient",
    "AsyncCompletionJob",
    "AsyncDraft",
    "AsyncEditJob",
    "AsyncEvaluation",
    "AsyncJob",
    "AsyncMassEditJob",
    "AsyncModel",
    "AsyncRef",
    "AsyncStatisticsJob",
    "AsyncSweep",
    "Audit",
    "AuditBroken",
    "AuditEntry",
    "Averages",
    "Checked",
    "Checkpoint",
    "Choice",
    "Client",
    "Completion",
    "CompletionJob",
    "Completions",
    "DataLoss",
    "Diff",
    "Draft",
    "Edit",
    "EditJob",
    "EditRejected",
    "Error",
    "Evaluated",
    "Evaluation",
    "Examples",
    "Fact",
    "Facts",
    "FailedPrecondition",
    "Failure",
    "Grid",
    "Internal",
    "InvalidArgument",
    "Job",
    "JobFailed",
    "JobSummary",
    "Manifest",
    "MassEditJob",
    "Mean",
    "Measured",
    "Measures",
    "Miss",
    "Missed",
    "Model",
    "ModelInfo",
    "NoServer",
    "NotFound",
    "OutOfRange",
    "Paths",
    "Peak",
    "PermissionDenied",
    "Plan",
    "Probe",
    "Progress",
    "Proof",
    "Query",
    "Reading",
    "Receipt",
    "Record",
    "Ref",
    "RefHandle",
    "RefMoved",
    "Report",
    "Rewrite",
    "Settings",
    "Site",
    "Statistics",
    "StatisticsJob",
    "StatisticsMissing",
    "Status",
    "Sweep",
    "SweepSummary",
    "Task",
    "Test",
    "Timeout",
    "TooMany",
    "Unauthenticated",
    "Unavailable",
    "Verification",
    "Verified",
    "Version",
    "Worker",
    "__version__",
    "aconnect",
    "connect",
    "read_choices",
    "read_mquake",
    "read_records",
    "read_rewrites",
    "verify_manifest",
    "verify_receipt",
    "wire",
]
