"""What a coordinator keeps, as values: versions, refs, edits, statistics, workers, its state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, TypeAlias

from . import wire
from .facts import Rewrite
from .results import Failure, rewrite_of

JobState: TypeAlias = Literal["queued", "running", "succeeded", "failed", "cancelled", "held"]
JobKind: TypeAlias = Literal["trace", "generate", "stats", "edit", "eval", "mass_edit"]
ENDED = ("succeeded", "failed", "cancelled")

__all__ = [
    "ENDED",
    "AuditEntry",
    "Checkpoint",
    "Counts",
    "Diff",
    "Edit",
    "EditSummary",
    "Failure",
    "JobKind",
    "JobState",
    "JobSummary",
    "MatrixDifference",
    "ModelInfo",
    "Plan",
    "Progress",
    "Ref",
    "Statistics",
    "Status",
    "Task",
    "Version",
    "Worker",
]


def last(name: str) -> str:
    """The last part of a resource's name: its identifier."""
    return name.rpartition("/")[2]


@dataclass(frozen=True)
class Counts:
    """How the tasks and units of a job stand."""

    units: int
    done: int
    failed: int
    cached: int
    tasks: int
    tasks_pending: int
    tasks_leased: int
    tasks_done: int
    tasks_failed: int
    tasks_cancelled: int
    tasks_quarantined: int

    @classmethod
    def of(cls, it: Any) -> Counts:
        """Counts from the contract's."""
        return cls(
            it.units,
            it.units_done,
            it.units_failed,
            it.units_cached,
            it.tasks,
            it.tasks_pending,
            it.tasks_leased,
            it.tasks_done,
            it.tasks_failed,
            it.tasks_cancelled,
            it.tasks_quarantined,
        )


@dataclass(frozen=True)
class JobSummary:
    """A job in a list: without its facts and results. ``client.job(id)`` gives the handle."""

    id: str
    kind: str
    state: str
    model: str
    version: str
    owner: str
    display_name: str
    counts: Counts
    created: datetime | None
    started: datetime | None
    ended: datetime | None
    name: str = field(repr=False)

    @classmethod
    def of(cls, it: Any) -> JobSummary:
        """A job from the contract's."""
        return cls(
            id=last(it.name),
            kind=it.WhichOneof("spec") or "",
            state=wire.word(it, "state"),
            model=last(it.model),
            version=last(it.version),
            owner=it.owner,
            display_name=it.display_name,
            counts=Counts.of(it.counts),
            created=wire.time(it, "create_time"),
            started=wire.time(it, "start_time"),
            ended=wire.time(it, "end_time"),
            name=it.name,
        )


@dataclass(frozen=True)
class Progress:
    """How a job stands, and how it goes."""

    state: str
    units: int
    done: int
    failed: int
    cached: int
    #: Cells or tokens a second, of all workers of the job.
    rate: float
    workers: int
    #: The open stage in words, and the newest step of an edit that is being computed.
    stage: str
    step: str
    #: The last event: ``watch(after=...)`` goes on from there.
    sequence: int
    #: Units that were committed since the progress before.
    committed: tuple[int, ...] = ()


@dataclass(frozen=True)
class Task:
    """A shard of a job."""

    number: int
    state: str
    first_unit: int
    units: int
    done: int
    worker: str
    #: Ended attempts by the class of their failure.
    failures: Mapping[str, int]
    last_failure: str

    @classmethod
    def of(cls, it: Any) -> Task:
        """A task from the contract's."""
        return cls(
            int(last(it.name)),
            wire.word(it, "state"),
            it.first_unit,
            it.unit_count,
            it.units_done,
            last(it.worker),
            {wire.word(one, "failure_class"): one.count for one in it.failures},
            it.last_failure,
        )


@dataclass(frozen=True)
class Version:
    """An edited model: a base and the edits on it, in order."""

    digest: str
    number: int
    kind: str
    parent: str
    #: The digests of its edits. Empty in lists.
    edits: tuple[str, ...]
    #: Names of the matrices that differ from the base's. Empty in lists.
    matrices: tuple[str, ...]
    subject_edit: str
    author: str
    created: datetime | None
    why: str
    warnings: tuple[str, ...]
    name: str = field(repr=False)

    @classmethod
    def of(cls, it: Any) -> Version:
        """A version from the contract's."""
        return cls(
            digest=last(it.name),
            number=it.number,
            kind=wire.word(it, "kind"),
            parent=it.parent,
            edits=tuple(it.edits),
            matrices=tuple(one.tensor_name for one in it.matrices),
            subject_edit=it.subject_edit,
            author=it.author,
            created=wire.time(it, "create_time"),
            why=it.why,
            warnings=tuple(it.warnings),
            name=it.name,
        )

    def __str__(self) -> str:
        return f"v{self.number}"


@dataclass(frozen=True)
class Ref:
    """A movable name for a version."""

    id: str
    kind: str
    #: The digest of the version that it points at.
    version: str
    etag: str
    moved: datetime | None
    author: str
    why: str
    name: str = field(repr=False)

    @classmethod
    def of(cls, it: Any) -> Ref:
        """A ref from the contract's."""
        return cls(
            id=last(it.name),
            kind=wire.word(it, "kind"),
            version=last(it.version),
            etag=it.etag,
            moved=wire.time(it, "update_time"),
            author=it.author,
            why=it.why,
            name=it.name,
        )


@dataclass(frozen=True)
class Edit:
    """One change of a model: what was asked, how it was computed, and what was measured."""

    digest: str
    state: str
    facts: tuple[Rewrite, ...]
    method: str
    layers: tuple[int, ...]
    layer_choice: str
    parameters: Mapping[str, float]
    #: What was measured, by name: "target_new.before", "update_norm", ...
    figures: Mapping[str, float]
    failed_gates: tuple[str, ...]
    warnings: tuple[str, ...]
    author: str
    why: str
    created: datetime | None
    based_on: str
    job: str
    name: str = field(repr=False)

    @classmethod
    def of(cls, it: Any) -> Edit:
        """An edit from the contract's."""
        return cls(
            digest=last(it.name),
            state=wire.word(it, "state"),
            facts=tuple(rewrite_of(one) for one in it.requests),
            method=it.method,
            layers=tuple(sorted({one.layer for one in it.factors})),
            layer_choice=it.layer_choice,
            parameters={one.key: one.value for one in it.parameters},
            figures={one.key: one.value for one in it.figures},
            failed_gates=tuple(it.failed_gates),
            warnings=tuple(it.warnings),
            author=it.author,
            why=it.why,
            created=wire.time(it, "create_time"),
            based_on=last(it.based_on),
            job=last(it.job),
            name=it.name,
        )

    def __str__(self) -> str:
        facts = [
            f"{one.prompt.replace('{}', one.subject, 1)} {one.target.strip()}"
            for one in self.facts[:3]
        ]
        more = "" if len(self.facts) <= 3 else f" and {len(self.facts) - 3} more"
        return "; ".join(facts) + more


#: An edit in a list, without its contexts.
EditSummary = Edit


@dataclass(frozen=True)
class MatrixDifference:
    """How a matrix differs between two versions."""

    tensor_name: str
    layer: int
    #: Frobenius norms of the difference, and of the base's matrix.
    difference_norm: float
    base_norm: float


@dataclass(frozen=True)
class Diff:
    """What differs between two versions: matrices, and facts."""

    left: Version
    right: Version
    matrices: tuple[MatrixDifference, ...]
    #: The edits that only one of them has.
    left_edits: tuple[Edit, ...]
    right_edits: tuple[Edit, ...]

    def __str__(self) -> str:
        lines = [f"{self.left} and {self.right}: {len(self.matrices)} matrices differ"]
        lines += [f"only {self.left}: {it}" for it in self.left_edits]
        lines += [f"only {self.right}: {it}" for it in self.right_edits]
        lines += [
            f"layer {it.layer}: {it.difference_norm:.3g} of {it.base_norm:.3g} in {it.tensor_name}"
            for it in self.matrices
        ]
        return "\n".join(lines)


@dataclass(frozen=True)
class Statistics:
    """Key statistics of a layer, which edits are computed with."""

    digest: str
    layer: int
    tokens: int
    channels: int
    source: str
    author: str
    created: datetime | None
    #: How many eigenvalues are not 0, and over how many directions the keys spread.
    rank: int | None
    effective_rank: float | None
    name: str = field(repr=False)

    @classmethod
    def of(cls, it: Any) -> Statistics:
        """Statistics from the contract's."""
        spectrum = wire.optional(it, "spectrum")
        return cls(
            last(it.name),
            it.layer,
            it.tokens,
            it.channels,
            it.source,
            it.author,
            wire.time(it, "create_time"),
            None if spectrum is None else spectrum.rank,
            None if spectrum is None else spectrum.effective_rank,
            it.name,
        )


@dataclass(frozen=True)
class Plan:
    """What an edit of many facts would do: the answer to ``plan_many``."""

    method: str
    layers: tuple[int, ...]
    layer_choice: str
    facts: int
    #: Facts whose text is the same up to the subject's end share one target.
    groups: int
    #: Each makes one edit, one version and one movement of the branch.
    batches: int
    branch: str
    statistics: tuple[str, ...]

    @classmethod
    def of(cls, it: Any) -> Plan:
        """A plan from the contract's."""
        return cls(
            it.method,
            tuple(it.layers),
            it.layer_choice,
            it.fact_count or len(it.tasks),
            it.group_count or len(it.groups),
            it.batch_count or len(it.batches),
            it.ref_id,
            tuple(one.digest for one in it.statistics),
        )


@dataclass(frozen=True)
class ModelInfo:
    """An imported checkpoint."""

    id: str
    family: str
    digest: str
    layers: int
    width: int
    heads: int
    vocabulary: int
    context: int
    parameters: int
    created: datetime | None

    @classmethod
    def of(cls, it: Any) -> ModelInfo:
        """A model from the contract's."""
        shape = it.shape
        return cls(
            last(it.name),
            it.family,
            it.digest,
            shape.layers,
            shape.width,
            shape.heads,
            shape.vocabulary,
            shape.context,
            shape.parameters,
            wire.time(it, "create_time"),
        )


@dataclass(frozen=True)
class Status:
    """How the coordinator is, in a line when printed."""

    version: str
    principal: str
    #: The caller's role; empty when the coordinator does not ask who calls.
    role: str
    #: The methods that the caller may call; empty where the coordinator does not say.
    methods: tuple[str, ...]
    started: datetime | None
    jobs: Mapping[str, int]
    queue_depth: int
    workers: Mapping[str, int]
    rate: float
    free_bytes: int
    problem: str
    #: Invariants that were violated, and how often. Anything here is a bug.
    violations: Mapping[str, int]

    @classmethod
    def of(cls, it: Any) -> Status:
        """A status from the contract's."""
        names = ("idle", "busy", "draining", "excluded", "away")
        return cls(
            version=it.version,
            principal=it.caller.principal,
            role=it.caller.role,
            methods=tuple(getattr(it.caller, "methods", ())),
            started=wire.time(it, "start_time"),
            jobs={wire.word(one, "state"): one.count for one in it.scheduler.jobs},
            queue_depth=it.scheduler.queue_depth,
            workers={name: getattr(it.scheduler.workers, name) for name in names},
            rate=it.scheduler.steps_per_second,
            free_bytes=it.store.free_bytes,
            problem=it.store.problem,
            violations={one.invariant: one.violations for one in it.invariants if one.violations},
        )

    def may(self, method: str) -> bool | None:
        """Whether the caller may call ``VersionService/UpdateRef``; None where it is not said."""
        if not self.methods:
            return None
        return f"{wire.PACKAGE}.{method}" in self.methods

    def __str__(self) -> str:
        workers = ", ".join(f"{n} {what}" for what, n in self.workers.items() if n) or "none"
        who = f"{self.principal} ({self.role})" if self.role else self.principal
        said = (
            f"palimpsest {self.version}, you are {who or 'nobody'}; workers: {workers}; "
            f"{self.jobs.get('running', 0)} jobs run, {self.queue_depth} tasks wait"
        )
        return f"{said}; the store: {self.problem}" if self.problem else said


@dataclass(frozen=True)
class Worker:
    """A worker, as the coordinator knows it."""

    name: str
    state: str
    host: str
    device: str
    leases: int


@dataclass(frozen=True)
class AuditEntry:
    """Something that was done, or refused."""

    sequence: int
    time: datetime | None
    principal: str
    action: str
    resource: str
    why: str
    outcome: str
    refusal: str
    version_before: str
    version_after: str
    detail: str
    #: The bytes that are hashed; None of an entry of more than 1 MiB, which ``hash`` stands for.
    leaf: bytes | None = field(repr=False)
    hash: bytes = field(repr=False)

    @classmethod
    def of(cls, message: Any) -> AuditEntry:
        """An entry from a leaf of the contract's: read from the bytes that are hashed."""
        leaf = bytes(message.leaf) or None
        it = message.entry if leaf is None else wire.v1.AuditEntry.FromString(leaf)
        return cls(
            it.sequence,
            wire.time(it, "time"),
            it.principal,
            it.action,
            it.resource,
            it.why,
            wire.word(it, "outcome"),
            it.refusal,
            it.version_before,
            it.version_after,
            it.detail,
            leaf,
            bytes(message.hash),
        )


@dataclass(frozen=True)
class Checkpoint:
    """A signed statement of how long the log was and what was in it."""

    note: str
    size: int
    root: bytes
    verifier_key: str
