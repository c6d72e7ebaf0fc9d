# Made from contract.bin and wire.py by stubs.py: change those.
from collections.abc import Iterable, Iterator, MutableMapping
from datetime import datetime
from typing import Any, Generic, NamedTuple, SupportsIndex, TypeVar, overload

from typing_extensions import Self

T = TypeVar("T")

class Message:
    """What every message has."""

    DESCRIPTOR: Any
    def SerializeToString(self) -> bytes: ...
    @classmethod
    def FromString(cls, data: bytes) -> Self: ...
    def ByteSize(self) -> int: ...
    def CopyFrom(self, other: Any) -> None: ...
    def MergeFrom(self, other: Any) -> None: ...
    def ClearField(self, name: str) -> None: ...
    def HasField(self, name: str) -> bool: ...
    def WhichOneof(self, name: str) -> str | None: ...

class Repeated(Generic[T]):
    """A repeated field."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[T]: ...
    @overload
    def __getitem__(self, at: SupportsIndex) -> T: ...
    @overload
    def __getitem__(self, at: slice) -> list[T]: ...
    def __delitem__(self, at: SupportsIndex | slice) -> None: ...
    def __add__(self, other: Any) -> list[T]: ...
    def __radd__(self, other: Any) -> list[T]: ...
    def add(self, **fields: Any) -> T: ...
    def append(self, value: T) -> None: ...
    def extend(self, values: Iterable[T]) -> None: ...

class rpc:
    class Status(Message):
        code: int
        message: str
        details: Repeated[Any]
        def __init__(self, *, code: int | None = ..., message: str | None = ..., details: Iterable[Any] | None = ...) -> None: ...
    class ErrorInfo(Message):
        reason: str
        domain: str
        metadata: MutableMapping[str, str]
        def __init__(self, *, reason: str | None = ..., domain: str | None = ..., metadata: MutableMapping[str, str] | None = ...) -> None: ...
    class RetryInfo(Message):
        retry_delay: Any
        def __init__(self, *, retry_delay: Any | None = ...) -> None: ...
    class DebugInfo(Message):
        stack_entries: Repeated[str]
        detail: str
        def __init__(self, *, stack_entries: Iterable[str] | None = ..., detail: str | None = ...) -> None: ...
    class QuotaFailure(Message):
        class Violation(Message):
            subject: str
            description: str
            api_service: str
            quota_metric: str
            quota_id: str
            quota_dimensions: MutableMapping[str, str]
            quota_value: int
            future_quota_value: int
            def __init__(self, *, subject: str | None = ..., description: str | None = ..., api_service: str | None = ..., quota_metric: str | None = ..., quota_id: str | None = ..., quota_dimensions: MutableMapping[str, str] | None = ..., quota_value: int | None = ..., future_quota_value: int | None = ...) -> None: ...
        violations: Repeated[rpc.QuotaFailure.Violation]
        def __init__(self, *, violations: Iterable[rpc.QuotaFailure.Violation] | None = ...) -> None: ...
    class PreconditionFailure(Message):
        class Violation(Message):
            type: str
            subject: str
            description: str
            def __init__(self, *, type: str | None = ..., subject: str | None = ..., description: str | None = ...) -> None: ...
        violations: Repeated[rpc.PreconditionFailure.Violation]
        def __init__(self, *, violations: Iterable[rpc.PreconditionFailure.Violation] | None = ...) -> None: ...
    class BadRequest(Message):
        class FieldViolation(Message):
            field: str
            description: str
            reason: str
            localized_message: rpc.LocalizedMessage
            def __init__(self, *, field: str | None = ..., description: str | None = ..., reason: str | None = ..., localized_message: rpc.LocalizedMessage | None = ...) -> None: ...
        field_violations: Repeated[rpc.BadRequest.FieldViolation]
        def __init__(self, *, field_violations: Iterable[rpc.BadRequest.FieldViolation] | None = ...) -> None: ...
    class RequestInfo(Message):
        request_id: str
        serving_data: str
        def __init__(self, *, request_id: str | None = ..., serving_data: str | None = ...) -> None: ...
    class ResourceInfo(Message):
        resource_type: str
        resource_name: str
        owner: str
        description: str
        def __init__(self, *, resource_type: str | None = ..., resource_name: str | None = ..., owner: str | None = ..., description: str | None = ...) -> None: ...
    class Help(Message):
        class Link(Message):
            description: str
            url: str
            def __init__(self, *, description: str | None = ..., url: str | None = ...) -> None: ...
        links: Repeated[rpc.Help.Link]
        def __init__(self, *, links: Iterable[rpc.Help.Link] | None = ...) -> None: ...
    class LocalizedMessage(Message):
        locale: str
        message: str
        def __init__(self, *, locale: str | None = ..., message: str | None = ...) -> None: ...

class v1:
    class AuditEntry(Message):
        sequence: int
        time: Any
        principal: str
        action: str
        resource: str
        request_digest: str
        why: str
        outcome: int
        refusal: str
        version_before: str
        version_after: str
        previous_root: bytes
        detail: str
        def __init__(self, *, sequence: int | None = ..., time: Any | None = ..., principal: str | None = ..., action: str | None = ..., resource: str | None = ..., request_digest: str | None = ..., why: str | None = ..., outcome: int | None = ..., refusal: str | None = ..., version_before: str | None = ..., version_after: str | None = ..., previous_root: bytes | None = ..., detail: str | None = ...) -> None: ...
    class AuditLeaf(Message):
        leaf: bytes
        entry: v1.AuditEntry
        hash: bytes
        def __init__(self, *, leaf: bytes | None = ..., entry: v1.AuditEntry | None = ..., hash: bytes | None = ...) -> None: ...
    class AuditCheckpoint(Message):
        note: str
        size: int
        root: bytes
        verifier_key: str
        def __init__(self, *, note: str | None = ..., size: int | None = ..., root: bytes | None = ..., verifier_key: str | None = ...) -> None: ...
    class ListAuditEntriesRequest(Message):
        page_size: int
        page_token: str
        principal: str
        action: str
        resource: str
        outcome: int
        start_time: Any
        end_time: Any
        newest_first: bool
        def __init__(self, *, page_size: int | None = ..., page_token: str | None = ..., principal: str | None = ..., action: str | None = ..., resource: str | None = ..., outcome: int | None = ..., start_time: Any | None = ..., end_time: Any | None = ..., newest_first: bool | None = ...) -> None: ...
    class ListAuditEntriesResponse(Message):
        leaves: Repeated[v1.AuditLeaf]
        next_page_token: str
        def __init__(self, *, leaves: Iterable[v1.AuditLeaf] | None = ..., next_page_token: str | None = ...) -> None: ...
    class WatchAuditEntriesRequest(Message):
        after_sequence: int
        def __init__(self, *, after_sequence: int | None = ...) -> None: ...
    class WatchAuditEntriesResponse(Message):
        leaves: Repeated[v1.AuditLeaf]
        def __init__(self, *, leaves: Iterable[v1.AuditLeaf] | None = ...) -> None: ...
    class GetAuditCheckpointRequest(Message):
        def __init__(self) -> None: ...
    class GetAuditCheckpointResponse(Message):
        checkpoint: v1.AuditCheckpoint
        def __init__(self, *, checkpoint: v1.AuditCheckpoint | None = ...) -> None: ...
    class ProveAuditEntryRequest(Message):
        sequence: int
        def __init__(self, *, sequence: int | None = ...) -> None: ...
    class ProveAuditEntryResponse(Message):
        leaf: v1.AuditLeaf
        path: Repeated[bytes]
        checkpoint: v1.AuditCheckpoint
        def __init__(self, *, leaf: v1.AuditLeaf | None = ..., path: Iterable[bytes] | None = ..., checkpoint: v1.AuditCheckpoint | None = ...) -> None: ...
    class ProveAuditConsistencyRequest(Message):
        old_size: int
        def __init__(self, *, old_size: int | None = ...) -> None: ...
    class ProveAuditConsistencyResponse(Message):
        path: Repeated[bytes]
        checkpoint: v1.AuditCheckpoint
        def __init__(self, *, path: Iterable[bytes] | None = ..., checkpoint: v1.AuditCheckpoint | None = ...) -> None: ...
    class VerifyAuditLogRequest(Message):
        def __init__(self) -> None: ...
    class VerifyAuditLogResponse(Message):
        problems: Repeated[str]
        entries: int
        checkpoint: v1.AuditCheckpoint
        def __init__(self, *, problems: Iterable[str] | None = ..., entries: int | None = ..., checkpoint: v1.AuditCheckpoint | None = ...) -> None: ...
    class GetReceiptRequest(Message):
        name: str
        def __init__(self, *, name: str | None = ...) -> None: ...
    class GetReceiptResponse(Message):
        receipt: v1.Receipt
        def __init__(self, *, receipt: v1.Receipt | None = ...) -> None: ...
    class Receipt(Message):
        note: str
        verifier_key: str
        asked: bytes
        entry: v1.AuditLeaf
        path: Repeated[bytes]
        checkpoint: v1.AuditCheckpoint
        def __init__(self, *, note: str | None = ..., verifier_key: str | None = ..., asked: bytes | None = ..., entry: v1.AuditLeaf | None = ..., path: Iterable[bytes] | None = ..., checkpoint: v1.AuditCheckpoint | None = ...) -> None: ...
    class Receiver(Message):
        layer: int
        head: int
        input: int
        def __init__(self, *, layer: int | None = ..., head: int | None = ..., input: int | None = ...) -> None: ...
    class Paths(Message):
        receivers: Repeated[v1.Receiver]
        frozen_mlps: bool
        def __init__(self, *, receivers: Iterable[v1.Receiver] | None = ..., frozen_mlps: bool | None = ...) -> None: ...
    class Corpus(Message):
        digest: str
        size: int
        def __init__(self, *, digest: str | None = ..., size: int | None = ...) -> None: ...
    class Fact(Message):
        prompt: str
        subject: str
        attribute: str
        relation: str
        id: str
        subject_start: int
        corrupted: str
        foil: str
        def __init__(self, *, prompt: str | None = ..., subject: str | None = ..., attribute: str | None = ..., relation: str | None = ..., id: str | None = ..., subject_start: int | None = ..., corrupted: str | None = ..., foil: str | None = ...) -> None: ...
    class TraceSpec(Message):
        facts: Repeated[v1.Fact]
        kinds: Repeated[int]
        noise: str
        samples: int
        seed: int
        window: int
        engine: int
        dtype: int
        noise_corpus: v1.Corpus
        compat: int
        corruption: int
        direction: int
        metrics: Repeated[int]
        paths: v1.Paths
        whole_answers: bool
        facts_object: str
        fact_count: int
        attribution_steps: int
        grad_drop: bool
        verify: int
        def __init__(self, *, facts: Iterable[v1.Fact] | None = ..., kinds: Iterable[int] | None = ..., noise: str | None = ..., samples: int | None = ..., seed: int | None = ..., window: int | None = ..., engine: int | None = ..., dtype: int | None = ..., noise_corpus: v1.Corpus | None = ..., compat: int | None = ..., corruption: int | None = ..., direction: int | None = ..., metrics: Iterable[int] | None = ..., paths: v1.Paths | None = ..., whole_answers: bool | None = ..., facts_object: str | None = ..., fact_count: int | None = ..., attribution_steps: int | None = ..., grad_drop: bool | None = ..., verify: int | None = ...) -> None: ...
    class FactList(Message):
        facts: Repeated[v1.Fact]
        def __init__(self, *, facts: Iterable[v1.Fact] | None = ...) -> None: ...
    class TraceUnit(Message):
        fact: v1.Fact
        kind: int
        partners: Repeated[v1.Fact]
        def __init__(self, *, fact: v1.Fact | None = ..., kind: int | None = ..., partners: Iterable[v1.Fact] | None = ...) -> None: ...
    class Token(Message):
        id: int
        text: str
        def __init__(self, *, id: int | None = ..., text: str | None = ...) -> None: ...
    class CorruptedPrompt(Message):
        prompt: str
        tokens: Repeated[v1.Token]
        def __init__(self, *, prompt: str | None = ..., tokens: Iterable[v1.Token] | None = ...) -> None: ...
    class MetricReading(Message):
        metric: int
        clean: float
        corrupted: float
        scores: Repeated[float]
        def __init__(self, *, metric: int | None = ..., clean: float | None = ..., corrupted: float | None = ..., scores: Iterable[float] | None = ...) -> None: ...
    class Grid(Message):
        fact: v1.Fact
        kind: int
        token_ids: Repeated[int]
        tokens: Repeated[str]
        subject_begin: int
        subject_end: int
        answer_id: int
        answer: str
        correct_prediction: bool
        high: float
        low: float
        layers: int
        scores: Repeated[float]
        window: int
        samples: int
        noise: str
        noise_scale: float
        seed: int
        noise_corpus: str
        compat: int
        peak: v1.GridPeak
        corrupted: v1.CorruptedPrompt
        foil: v1.Token
        direction: int
        readings: Repeated[v1.MetricReading]
        untraced: str
        heads: int
        paths: v1.Paths
        engine: int
        attribution_steps: int
        grad_drop: bool
        verified: Repeated[v1.VerifiedCell]
        whole_answers: bool
        answer_rest: Repeated[v1.Token]
        foil_rest: Repeated[v1.Token]
        neurons: Repeated[int]
        def __init__(self, *, fact: v1.Fact | None = ..., kind: int | None = ..., token_ids: Iterable[int] | None = ..., tokens: Iterable[str] | None = ..., subject_begin: int | None = ..., subject_end: int | None = ..., answer_id: int | None = ..., answer: str | None = ..., correct_prediction: bool | None = ..., high: float | None = ..., low: float | None = ..., layers: int | None = ..., scores: Iterable[float] | None = ..., window: int | None = ..., samples: int | None = ..., noise: str | None = ..., noise_scale: float | None = ..., seed: int | None = ..., noise_corpus: str | None = ..., compat: int | None = ..., peak: v1.GridPeak | None = ..., corrupted: v1.CorruptedPrompt | None = ..., foil: v1.Token | None = ..., direction: int | None = ..., readings: Iterable[v1.MetricReading] | None = ..., untraced: str | None = ..., heads: int | None = ..., paths: v1.Paths | None = ..., engine: int | None = ..., attribution_steps: int | None = ..., grad_drop: bool | None = ..., verified: Iterable[v1.VerifiedCell] | None = ..., whole_answers: bool | None = ..., answer_rest: Iterable[v1.Token] | None = ..., foil_rest: Iterable[v1.Token] | None = ..., neurons: Iterable[int] | None = ...) -> None: ...
    class VerifiedCell(Message):
        token: int
        layer: int
        random: bool
        exact: Repeated[float]
        head: int
        neuron: int
        estimate: Repeated[float]
        def __init__(self, *, token: int | None = ..., layer: int | None = ..., random: bool | None = ..., exact: Iterable[float] | None = ..., head: int | None = ..., neuron: int | None = ..., estimate: Iterable[float] | None = ...) -> None: ...
    class GridPeak(Message):
        token: int
        layer: int
        effect: float
        role: int
        text: str
        head: int
        neuron: int
        def __init__(self, *, token: int | None = ..., layer: int | None = ..., effect: float | None = ..., role: int | None = ..., text: str | None = ..., head: int | None = ..., neuron: int | None = ...) -> None: ...
    class Mean(Message):
        rows: int
        mean: float
        half_width: float
        def __init__(self, *, rows: int | None = ..., mean: float | None = ..., half_width: float | None = ...) -> None: ...
    class KindAverages(Message):
        kind: int
        relation: str
        layers: int
        wrong: int
        clean: v1.Mean
        corrupted: v1.Mean
        total_effect: v1.Mean
        roles: Repeated[v1.RoleEffects]
        metric: int
        direction: int
        without_share: int
        heads: int
        engine: int
        attribution_steps: int
        grad_drop: bool
        paths: v1.Paths
        whole_answers: bool
        def __init__(self, *, kind: int | None = ..., relation: str | None = ..., layers: int | None = ..., wrong: int | None = ..., clean: v1.Mean | None = ..., corrupted: v1.Mean | None = ..., total_effect: v1.Mean | None = ..., roles: Iterable[v1.RoleEffects] | None = ..., metric: int | None = ..., direction: int | None = ..., without_share: int | None = ..., heads: int | None = ..., engine: int | None = ..., attribution_steps: int | None = ..., grad_drop: bool | None = ..., paths: v1.Paths | None = ..., whole_answers: bool | None = ...) -> None: ...
    class RoleEffects(Message):
        role: int
        by_layer: Repeated[v1.Mean]
        share: Repeated[v1.Mean]
        def __init__(self, *, role: int | None = ..., by_layer: Iterable[v1.Mean] | None = ..., share: Iterable[v1.Mean] | None = ...) -> None: ...
    class NoiseUnit(Message):
        subjects: Repeated[str]
        factor: float
        corpus: v1.Corpus
        facts_object: str
        facts_size: int
        def __init__(self, *, subjects: Iterable[str] | None = ..., factor: float | None = ..., corpus: v1.Corpus | None = ..., facts_object: str | None = ..., facts_size: int | None = ...) -> None: ...
    class NoiseLevel(Message):
        scale: float
        def __init__(self, *, scale: float | None = ...) -> None: ...
    class Edit(Message):
        name: str
        base: str
        requests: Repeated[v1.EditRequest]
        method: str
        parameters: Repeated[v1.NamedNumber]
        contexts: Repeated[str]
        seed: int
        statistics: Repeated[str]
        factors: Repeated[v1.LowRankFactor]
        figures: Repeated[v1.NamedNumber]
        author: str
        create_time: Any
        why: str
        based_on: str
        state: int
        failed_gates: Repeated[str]
        request_digest: str
        job: str
        fingerprint: str
        layer_choice: str
        warnings: Repeated[str]
        keys: Repeated[v1.EditKeys]
        solves: Repeated[v1.EditSolve]
        columns: Repeated[int]
        replaces: str
        left_out: Repeated[v1.EditRequest]
        def __init__(self, *, name: str | None = ..., base: str | None = ..., requests: Iterable[v1.EditRequest] | None = ..., method: str | None = ..., parameters: Iterable[v1.NamedNumber] | None = ..., contexts: Iterable[str] | None = ..., seed: int | None = ..., statistics: Iterable[str] | None = ..., factors: Iterable[v1.LowRankFactor] | None = ..., figures: Iterable[v1.NamedNumber] | None = ..., author: str | None = ..., create_time: Any | None = ..., why: str | None = ..., based_on: str | None = ..., state: int | None = ..., failed_gates: Iterable[str] | None = ..., request_digest: str | None = ..., job: str | None = ..., fingerprint: str | None = ..., layer_choice: str | None = ..., warnings: Iterable[str] | None = ..., keys: Iterable[v1.EditKeys] | None = ..., solves: Iterable[v1.EditSolve] | None = ..., columns: Iterable[int] | None = ..., replaces: str | None = ..., left_out: Iterable[v1.EditRequest] | None = ...) -> None: ...
    class EditKeys(Message):
        tensor_name: str
        layer: int
        inner: int
        columns: int
        digest: str
        def __init__(self, *, tensor_name: str | None = ..., layer: int | None = ..., inner: int | None = ..., columns: int | None = ..., digest: str | None = ...) -> None: ...
    class EditSolve(Message):
        tensor_name: str
        layer: int
        width: int
        inner: int
        columns: int
        keys: str
        residuals: str
        def __init__(self, *, tensor_name: str | None = ..., layer: int | None = ..., width: int | None = ..., inner: int | None = ..., columns: int | None = ..., keys: str | None = ..., residuals: str | None = ...) -> None: ...
    class EditRequest(Message):
        prompt: str
        subject: str
        target_new: str
        target_true: str
        id: str
        def __init__(self, *, prompt: str | None = ..., subject: str | None = ..., target_new: str | None = ..., target_true: str | None = ..., id: str | None = ...) -> None: ...
    class NamedNumber(Message):
        key: str
        value: float
        def __init__(self, *, key: str | None = ..., value: float | None = ...) -> None: ...
    class LowRankFactor(Message):
        tensor_name: str
        layer: int
        width: int
        inner: int
        rank: int
        digest: str
        data: bytes
        def __init__(self, *, tensor_name: str | None = ..., layer: int | None = ..., width: int | None = ..., inner: int | None = ..., rank: int | None = ..., digest: str | None = ..., data: bytes | None = ...) -> None: ...
    class Version(Message):
        class Matrix(Message):
            tensor_name: str
            digest: str
            dtype: str
            layer: int
            def __init__(self, *, tensor_name: str | None = ..., digest: str | None = ..., dtype: str | None = ..., layer: int | None = ...) -> None: ...
        name: str
        base: str
        parent: str
        edits: Repeated[str]
        matrices: Repeated[v1.Version.Matrix]
        author: str
        create_time: Any
        request_digest: str
        kind: int
        subject_edit: str
        warnings: Repeated[str]
        why: str
        number: int
        edit_count: int
        edits_digest: str
        edit_lists: Repeated[str]
        depth: int
        replaced_edit: str
        def __init__(self, *, name: str | None = ..., base: str | None = ..., parent: str | None = ..., edits: Iterable[str] | None = ..., matrices: Iterable[v1.Version.Matrix] | None = ..., author: str | None = ..., create_time: Any | None = ..., request_digest: str | None = ..., kind: int | None = ..., subject_edit: str | None = ..., warnings: Iterable[str] | None = ..., why: str | None = ..., number: int | None = ..., edit_count: int | None = ..., edits_digest: str | None = ..., edit_lists: Iterable[str] | None = ..., depth: int | None = ..., replaced_edit: str | None = ...) -> None: ...
    class Ref(Message):
        name: str
        version: str
        kind: int
        etag: str
        update_time: Any
        author: str
        why: str
        def __init__(self, *, name: str | None = ..., version: str | None = ..., kind: int | None = ..., etag: str | None = ..., update_time: Any | None = ..., author: str | None = ..., why: str | None = ...) -> None: ...
    class GetVersionRequest(Message):
        name: str
        without_edits: bool
        def __init__(self, *, name: str | None = ..., without_edits: bool | None = ...) -> None: ...
    class GetVersionResponse(Message):
        version: v1.Version
        def __init__(self, *, version: v1.Version | None = ...) -> None: ...
    class ListVersionsRequest(Message):
        parent: str
        page_size: int
        page_token: str
        def __init__(self, *, parent: str | None = ..., page_size: int | None = ..., page_token: str | None = ...) -> None: ...
    class ListVersionsResponse(Message):
        versions: Repeated[v1.Version]
        next_page_token: str
        def __init__(self, *, versions: Iterable[v1.Version] | None = ..., next_page_token: str | None = ...) -> None: ...
    class ListFactorsRequest(Message):
        parent: str
        page_size: int
        page_token: str
        def __init__(self, *, parent: str | None = ..., page_size: int | None = ..., page_token: str | None = ...) -> None: ...
    class ListFactorsResponse(Message):
        factors: Repeated[v1.LowRankFactor]
        next_page_token: str
        def __init__(self, *, factors: Iterable[v1.LowRankFactor] | None = ..., next_page_token: str | None = ...) -> None: ...
    class CompareVersionsRequest(Message):
        left: str
        right: str
        page_size: int
        page_token: str
        def __init__(self, *, left: str | None = ..., right: str | None = ..., page_size: int | None = ..., page_token: str | None = ...) -> None: ...
    class CompareVersionsResponse(Message):
        left: v1.Version
        right: v1.Version
        matrices: Repeated[v1.MatrixDifference]
        left_edits: Repeated[v1.Edit]
        right_edits: Repeated[v1.Edit]
        next_page_token: str
        def __init__(self, *, left: v1.Version | None = ..., right: v1.Version | None = ..., matrices: Iterable[v1.MatrixDifference] | None = ..., left_edits: Iterable[v1.Edit] | None = ..., right_edits: Iterable[v1.Edit] | None = ..., next_page_token: str | None = ...) -> None: ...
    class MatrixDifference(Message):
        tensor_name: str
        layer: int
        left_digest: str
        right_digest: str
        difference_norm: float
        base_norm: float
        def __init__(self, *, tensor_name: str | None = ..., layer: int | None = ..., left_digest: str | None = ..., right_digest: str | None = ..., difference_norm: float | None = ..., base_norm: float | None = ...) -> None: ...
    class GetEditRequest(Message):
        name: str
        def __init__(self, *, name: str | None = ...) -> None: ...
    class GetEditResponse(Message):
        edit: v1.Edit
        def __init__(self, *, edit: v1.Edit | None = ...) -> None: ...
    class ListEditsRequest(Message):
        parent: str
        page_size: int
        page_token: str
        def __init__(self, *, parent: str | None = ..., page_size: int | None = ..., page_token: str | None = ...) -> None: ...
    class ListEditsResponse(Message):
        edits: Repeated[v1.Edit]
        next_page_token: str
        def __init__(self, *, edits: Iterable[v1.Edit] | None = ..., next_page_token: str | None = ...) -> None: ...
    class CreateEditRequest(Message):
        parent: str
        edit: v1.Edit
        result: str
        ref_id: str
        etag: str
        why: str
        def __init__(self, *, parent: str | None = ..., edit: v1.Edit | None = ..., result: str | None = ..., ref_id: str | None = ..., etag: str | None = ..., why: str | None = ...) -> None: ...
    class CreateEditResponse(Message):
        edit: v1.Edit
        version: v1.Version
        ref: v1.Ref
        def __init__(self, *, edit: v1.Edit | None = ..., version: v1.Version | None = ..., ref: v1.Ref | None = ...) -> None: ...
    class RevertEditRequest(Message):
        name: str
        ref_id: str
        etag: str
        why: str
        def __init__(self, *, name: str | None = ..., ref_id: str | None = ..., etag: str | None = ..., why: str | None = ...) -> None: ...
    class RevertEditResponse(Message):
        version: v1.Version
        ref: v1.Ref
        def __init__(self, *, version: v1.Version | None = ..., ref: v1.Ref | None = ...) -> None: ...
    class CherryPickEditRequest(Message):
        name: str
        ref_id: str
        etag: str
        why: str
        def __init__(self, *, name: str | None = ..., ref_id: str | None = ..., etag: str | None = ..., why: str | None = ...) -> None: ...
    class CherryPickEditResponse(Message):
        version: v1.Version
        ref: v1.Ref
        def __init__(self, *, version: v1.Version | None = ..., ref: v1.Ref | None = ...) -> None: ...
    class GetRefRequest(Message):
        name: str
        def __init__(self, *, name: str | None = ...) -> None: ...
    class GetRefResponse(Message):
        ref: v1.Ref
        def __init__(self, *, ref: v1.Ref | None = ...) -> None: ...
    class ListRefsRequest(Message):
        parent: str
        page_size: int
        page_token: str
        def __init__(self, *, parent: str | None = ..., page_size: int | None = ..., page_token: str | None = ...) -> None: ...
    class ListRefsResponse(Message):
        refs: Repeated[v1.Ref]
        next_page_token: str
        def __init__(self, *, refs: Iterable[v1.Ref] | None = ..., next_page_token: str | None = ...) -> None: ...
    class CreateRefRequest(Message):
        parent: str
        ref_id: str
        ref: v1.Ref
        def __init__(self, *, parent: str | None = ..., ref_id: str | None = ..., ref: v1.Ref | None = ...) -> None: ...
    class CreateRefResponse(Message):
        ref: v1.Ref
        def __init__(self, *, ref: v1.Ref | None = ...) -> None: ...
    class UpdateRefRequest(Message):
        ref: v1.Ref
        force: bool
        def __init__(self, *, ref: v1.Ref | None = ..., force: bool | None = ...) -> None: ...
    class UpdateRefResponse(Message):
        ref: v1.Ref
        previous_version: str
        def __init__(self, *, ref: v1.Ref | None = ..., previous_version: str | None = ...) -> None: ...
    class EditSpec(Message):
        class Statistics(Message):
            digest: str
            size: int
            def __init__(self, *, digest: str | None = ..., size: int | None = ...) -> None: ...
        tasks: Repeated[v1.EditTask]
        method: str
        layer: int
        parameters: Repeated[v1.NamedNumber]
        contexts: Repeated[str]
        seed: int
        gates: v1.EditGates
        dtype: int
        statistics: v1.EditSpec.Statistics
        layer_choice: str
        ref_id: str
        etag: str
        rebase: bool
        why: str
        keep_going: bool
        statistics_name: str
        gate_texts: v1.GateTexts
        gate_questions: v1.GateQuestions
        def __init__(self, *, tasks: Iterable[v1.EditTask] | None = ..., method: str | None = ..., layer: int | None = ..., parameters: Iterable[v1.NamedNumber] | None = ..., contexts: Iterable[str] | None = ..., seed: int | None = ..., gates: v1.EditGates | None = ..., dtype: int | None = ..., statistics: v1.EditSpec.Statistics | None = ..., layer_choice: str | None = ..., ref_id: str | None = ..., etag: str | None = ..., rebase: bool | None = ..., why: str | None = ..., keep_going: bool | None = ..., statistics_name: str | None = ..., gate_texts: v1.GateTexts | None = ..., gate_questions: v1.GateQuestions | None = ...) -> None: ...
    class EditTask(Message):
        request: v1.EditRequest
        paraphrases: Repeated[str]
        neighbours: Repeated[str]
        def __init__(self, *, request: v1.EditRequest | None = ..., paraphrases: Iterable[str] | None = ..., neighbours: Iterable[str] | None = ...) -> None: ...
    class OverwrittenFact(Message):
        edit: str
        request: v1.EditRequest
        by: str
        cosine: float
        before: float
        after: float
        def __init__(self, *, edit: str | None = ..., request: v1.EditRequest | None = ..., by: str | None = ..., cosine: float | None = ..., before: float | None = ..., after: float | None = ...) -> None: ...
    class EditGates(Message):
        efficacy: float
        neighbour_drift: float
        norm: float
        norm_warning: float
        ppl_ratio: float
        server_ppl_ratio: float
        locality: float
        downstream_drop: float
        def __init__(self, *, efficacy: float | None = ..., neighbour_drift: float | None = ..., norm: float | None = ..., norm_warning: float | None = ..., ppl_ratio: float | None = ..., server_ppl_ratio: float | None = ..., locality: float | None = ..., downstream_drop: float | None = ...) -> None: ...
    class GateTexts(Message):
        asked: v1.Corpus
        server: v1.Corpus
        def __init__(self, *, asked: v1.Corpus | None = ..., server: v1.Corpus | None = ...) -> None: ...
    class GateQuestions(Message):
        class Task(Message):
            name: str
            questions: int
            def __init__(self, *, name: str | None = ..., questions: int | None = ...) -> None: ...
        digest: str
        size: int
        tasks: Repeated[v1.GateQuestions.Task]
        def __init__(self, *, digest: str | None = ..., size: int | None = ..., tasks: Iterable[v1.GateQuestions.Task] | None = ...) -> None: ...
    class EditOutcome(Message):
        edit: v1.Edit
        probes: Repeated[v1.EditProbe]
        steps: Repeated[v1.EditStep]
        version: str
        overwritten: Repeated[v1.OverwrittenFact]
        def __init__(self, *, edit: v1.Edit | None = ..., probes: Iterable[v1.EditProbe] | None = ..., steps: Iterable[v1.EditStep] | None = ..., version: str | None = ..., overwritten: Iterable[v1.OverwrittenFact] | None = ...) -> None: ...
    class EditProbe(Message):
        kind: int
        prompt: str
        new_before: float
        new_after: float
        true_before: float
        true_after: float
        def __init__(self, *, kind: int | None = ..., prompt: str | None = ..., new_before: float | None = ..., new_after: float | None = ..., true_before: float | None = ..., true_after: float | None = ...) -> None: ...
    class EditStep(Message):
        loss: float
        nll: float
        probability: float
        drift: float
        def __init__(self, *, loss: float | None = ..., nll: float | None = ..., probability: float | None = ..., drift: float | None = ...) -> None: ...
    class EditProgress(Message):
        class Step(Message):
            number: int
            loss: float
            probability: float
            kl: float
            def __init__(self, *, number: int | None = ..., loss: float | None = ..., probability: float | None = ..., kl: float | None = ...) -> None: ...
        unit: int
        most_steps: int
        steps: Repeated[v1.EditProgress.Step]
        def __init__(self, *, unit: int | None = ..., most_steps: int | None = ..., steps: Iterable[v1.EditProgress.Step] | None = ...) -> None: ...
    class EvalSpec(Message):
        records: Repeated[v1.EvalRecord]
        set: int
        against: str
        edit_each: v1.EditSpec
        seed: int
        dtype: int
        left_out: int
        spoiled: int
        free_generation: bool
        records_object: str
        record_count: int
        def __init__(self, *, records: Iterable[v1.EvalRecord] | None = ..., set: int | None = ..., against: str | None = ..., edit_each: v1.EditSpec | None = ..., seed: int | None = ..., dtype: int | None = ..., left_out: int | None = ..., spoiled: int | None = ..., free_generation: bool | None = ..., records_object: str | None = ..., record_count: int | None = ...) -> None: ...
    class EvalRecordList(Message):
        records: Repeated[v1.EvalRecord]
        def __init__(self, *, records: Iterable[v1.EvalRecord] | None = ...) -> None: ...
    class EvalRecord(Message):
        request: v1.EditRequest
        paraphrases: Repeated[str]
        neighbours: Repeated[v1.EvalNeighbour]
        generation_prompts: Repeated[str]
        text: str
        tests: Repeated[v1.EvalTest]
        choice: v1.EvalChoice
        def __init__(self, *, request: v1.EditRequest | None = ..., paraphrases: Iterable[str] | None = ..., neighbours: Iterable[v1.EvalNeighbour] | None = ..., generation_prompts: Iterable[str] | None = ..., text: str | None = ..., tests: Iterable[v1.EvalTest] | None = ..., choice: v1.EvalChoice | None = ...) -> None: ...
    class EvalTest(Message):
        criterion: str
        queries: Repeated[v1.EvalQuery]
        any: bool
        if_edited: bool
        def __init__(self, *, criterion: str | None = ..., queries: Iterable[v1.EvalQuery] | None = ..., any: bool | None = ..., if_edited: bool | None = ...) -> None: ...
    class EvalQuery(Message):
        prompt: str
        answers: Repeated[v1.EvalExpected]
        behind: str
        def __init__(self, *, prompt: str | None = ..., answers: Iterable[v1.EvalExpected] | None = ..., behind: str | None = ...) -> None: ...
    class EvalExpected(Message):
        names: Repeated[str]
        def __init__(self, *, names: Iterable[str] | None = ...) -> None: ...
    class EvalChoice(Message):
        task: str
        prompt: str
        choices: Repeated[str]
        right: int
        def __init__(self, *, task: str | None = ..., prompt: str | None = ..., choices: Iterable[str] | None = ..., right: int | None = ...) -> None: ...
    class EvalNeighbour(Message):
        prompt: str
        target_true: str
        def __init__(self, *, prompt: str | None = ..., target_true: str | None = ...) -> None: ...
    class EvalOutcome(Message):
        measured: v1.EvalMeasure
        before: v1.EvalMeasure
        edit: v1.EvalEdit
        def __init__(self, *, measured: v1.EvalMeasure | None = ..., before: v1.EvalMeasure | None = ..., edit: v1.EvalEdit | None = ...) -> None: ...
    class EvalMeasure(Message):
        figures: Repeated[v1.NamedNumber]
        answers: Repeated[v1.EvalAnswer]
        texts: Repeated[str]
        text: v1.EvalScore
        continuations: Repeated[str]
        choices: Repeated[v1.EvalScore]
        def __init__(self, *, figures: Iterable[v1.NamedNumber] | None = ..., answers: Iterable[v1.EvalAnswer] | None = ..., texts: Iterable[str] | None = ..., text: v1.EvalScore | None = ..., continuations: Iterable[str] | None = ..., choices: Iterable[v1.EvalScore] | None = ...) -> None: ...
    class EvalAnswer(Message):
        kind: int
        new_object: v1.EvalScore
        true_object: v1.EvalScore
        def __init__(self, *, kind: int | None = ..., new_object: v1.EvalScore | None = ..., true_object: v1.EvalScore | None = ...) -> None: ...
    class EvalScore(Message):
        nll: float
        tokens: int
        likeliest: int
        def __init__(self, *, nll: float | None = ..., tokens: int | None = ..., likeliest: int | None = ...) -> None: ...
    class EvalEdit(Message):
        steps: int
        loss: float
        norm: float
        def __init__(self, *, steps: int | None = ..., loss: float | None = ..., norm: float | None = ...) -> None: ...
    class GenerateSpec(Message):
        prompts: Repeated[str]
        max_tokens: int
        temperature: float
        top_k: int
        seed: int
        dtype: int
        def __init__(self, *, prompts: Iterable[str] | None = ..., max_tokens: int | None = ..., temperature: float | None = ..., top_k: int | None = ..., seed: int | None = ..., dtype: int | None = ...) -> None: ...
    class GenerateUnit(Message):
        prompt: str
        def __init__(self, *, prompt: str | None = ...) -> None: ...
    class Completion(Message):
        prompt: str
        text: str
        token_ids: Repeated[int]
        ended: bool
        def __init__(self, *, prompt: str | None = ..., text: str | None = ..., token_ids: Iterable[int] | None = ..., ended: bool | None = ...) -> None: ...
    class Statistics(Message):
        name: str
        version: str
        layer: int
        tokens: int
        channels: int
        corpus: str
        source: str
        dtype: int
        size: int
        create_time: Any
        author: str
        submitted: bool
        spectrum: v1.KeySpectrum
        def __init__(self, *, name: str | None = ..., version: str | None = ..., layer: int | None = ..., tokens: int | None = ..., channels: int | None = ..., corpus: str | None = ..., source: str | None = ..., dtype: int | None = ..., size: int | None = ..., create_time: Any | None = ..., author: str | None = ..., submitted: bool | None = ..., spectrum: v1.KeySpectrum | None = ...) -> None: ...
    class StatsSpec(Message):
        pieces: Repeated[v1.StatsUnit]
        layers: Repeated[int]
        length: int
        dtype: int
        source: str
        corpus: v1.Corpus
        def __init__(self, *, pieces: Iterable[v1.StatsUnit] | None = ..., layers: Iterable[int] | None = ..., length: int | None = ..., dtype: int | None = ..., source: str | None = ..., corpus: v1.Corpus | None = ...) -> None: ...
    class StatsUnit(Message):
        class Range(Message):
            offset: int
            length: int
            digest: str
            def __init__(self, *, offset: int | None = ..., length: int | None = ..., digest: str | None = ...) -> None: ...
        documents: Repeated[str]
        self_sample: int
        seed: int
        range: v1.StatsUnit.Range
        def __init__(self, *, documents: Iterable[str] | None = ..., self_sample: int | None = ..., seed: int | None = ..., range: v1.StatsUnit.Range | None = ...) -> None: ...
    class StatsSumUnit(Message):
        layer: int
        pieces: v1.UnitRange
        def __init__(self, *, layer: int | None = ..., pieces: v1.UnitRange | None = ...) -> None: ...
    class UnitRange(Message):
        stage: int
        first_unit: int
        units: int
        def __init__(self, *, stage: int | None = ..., first_unit: int | None = ..., units: int | None = ...) -> None: ...
    class StatsSum(Message):
        layer: int
        tokens: int
        channels: int
        digest: str
        size: int
        spectrum: v1.KeySpectrum
        def __init__(self, *, layer: int | None = ..., tokens: int | None = ..., channels: int | None = ..., digest: str | None = ..., size: int | None = ..., spectrum: v1.KeySpectrum | None = ...) -> None: ...
    class KeySpectrum(Message):
        trace: float
        largest: float
        smallest: float
        effective_rank: float
        rank: int
        rank_99: int
        def __init__(self, *, trace: float | None = ..., largest: float | None = ..., smallest: float | None = ..., effective_rank: float | None = ..., rank: int | None = ..., rank_99: int | None = ...) -> None: ...
    class StatsShard(Message):
        class Sum(Message):
            layer: int
            digest: str
            size: int
            def __init__(self, *, layer: int | None = ..., digest: str | None = ..., size: int | None = ...) -> None: ...
        tokens: int
        sums: Repeated[v1.StatsShard.Sum]
        def __init__(self, *, tokens: int | None = ..., sums: Iterable[v1.StatsShard.Sum] | None = ...) -> None: ...
    class CreateStatisticsRequest(Message):
        class File(Message):
            model: str
            layer: int
            digest: str
            source: str
            def __init__(self, *, model: str | None = ..., layer: int | None = ..., digest: str | None = ..., source: str | None = ...) -> None: ...
        job: str
        file: v1.CreateStatisticsRequest.File
        def __init__(self, *, job: str | None = ..., file: v1.CreateStatisticsRequest.File | None = ...) -> None: ...
    class CreateStatisticsResponse(Message):
        statistics: Repeated[v1.Statistics]
        def __init__(self, *, statistics: Iterable[v1.Statistics] | None = ...) -> None: ...
    class ListStatisticsRequest(Message):
        parent: str
        page_size: int
        page_token: str
        def __init__(self, *, parent: str | None = ..., page_size: int | None = ..., page_token: str | None = ...) -> None: ...
    class ListStatisticsResponse(Message):
        statistics: Repeated[v1.Statistics]
        next_page_token: str
        def __init__(self, *, statistics: Iterable[v1.Statistics] | None = ..., next_page_token: str | None = ...) -> None: ...
    class DeleteStatisticsRequest(Message):
        name: str
        why: str
        def __init__(self, *, name: str | None = ..., why: str | None = ...) -> None: ...
    class DeleteStatisticsResponse(Message):
        statistics: Repeated[v1.Statistics]
        def __init__(self, *, statistics: Iterable[v1.Statistics] | None = ...) -> None: ...
    class MassEditSpec(Message):
        class Without(Message):
            edit: str
            facts: Repeated[str]
            left_out: Repeated[int]
            solves: Repeated[v1.EditSolve]
            keys: Repeated[v1.EditKeys]
            factors: Repeated[v1.LowRankFactor]
            based_on: str
            figures: Repeated[v1.NamedNumber]
            def __init__(self, *, edit: str | None = ..., facts: Iterable[str] | None = ..., left_out: Iterable[int] | None = ..., solves: Iterable[v1.EditSolve] | None = ..., keys: Iterable[v1.EditKeys] | None = ..., factors: Iterable[v1.LowRankFactor] | None = ..., based_on: str | None = ..., figures: Iterable[v1.NamedNumber] | None = ...) -> None: ...
        class Statistics(Message):
            layer: int
            digest: str
            size: int
            def __init__(self, *, layer: int | None = ..., digest: str | None = ..., size: int | None = ...) -> None: ...
        tasks: Repeated[v1.EditTask]
        method: str
        layers: Repeated[int]
        parameters: Repeated[v1.NamedNumber]
        contexts: Repeated[str]
        seed: int
        gates: v1.EditGates
        dtype: int
        statistics: Repeated[v1.MassEditSpec.Statistics]
        layer_choice: str
        ref_id: str
        etag: str
        why: str
        batch: int
        loss_layer: int
        groups: Repeated[int]
        batches: Repeated[int]
        fact_count: int
        group_count: int
        batch_count: int
        keep_going: bool
        check_only: bool
        statistics_names: Repeated[str]
        tasks_object: str
        gate_texts: v1.GateTexts
        gate_questions: v1.GateQuestions
        without: v1.MassEditSpec.Without
        def __init__(self, *, tasks: Iterable[v1.EditTask] | None = ..., method: str | None = ..., layers: Iterable[int] | None = ..., parameters: Iterable[v1.NamedNumber] | None = ..., contexts: Iterable[str] | None = ..., seed: int | None = ..., gates: v1.EditGates | None = ..., dtype: int | None = ..., statistics: Iterable[v1.MassEditSpec.Statistics] | None = ..., layer_choice: str | None = ..., ref_id: str | None = ..., etag: str | None = ..., why: str | None = ..., batch: int | None = ..., loss_layer: int | None = ..., groups: Iterable[int] | None = ..., batches: Iterable[int] | None = ..., fact_count: int | None = ..., group_count: int | None = ..., batch_count: int | None = ..., keep_going: bool | None = ..., check_only: bool | None = ..., statistics_names: Iterable[str] | None = ..., tasks_object: str | None = ..., gate_texts: v1.GateTexts | None = ..., gate_questions: v1.GateQuestions | None = ..., without: v1.MassEditSpec.Without | None = ...) -> None: ...
    class MassEditUnit(Message):
        step: int
        tasks: Repeated[v1.EditTask]
        layer_index: int
        targets: v1.UnitRange
        keys: Repeated[v1.UnitRange]
        solved: Repeated[v1.UnitRange]
        measured: v1.UnitRange
        checked: v1.UnitRange
        batch: int
        batches: int
        columns: Repeated[int]
        def __init__(self, *, step: int | None = ..., tasks: Iterable[v1.EditTask] | None = ..., layer_index: int | None = ..., targets: v1.UnitRange | None = ..., keys: Iterable[v1.UnitRange] | None = ..., solved: Iterable[v1.UnitRange] | None = ..., measured: v1.UnitRange | None = ..., checked: v1.UnitRange | None = ..., batch: int | None = ..., batches: int | None = ..., columns: Iterable[int] | None = ...) -> None: ...
    class MassEditContexts(Message):
        contexts: Repeated[str]
        def __init__(self, *, contexts: Iterable[str] | None = ...) -> None: ...
    class MassEditTarget(Message):
        value: bytes
        steps: int
        loss: float
        probability: float
        length: float
        at_first_token: bool
        def __init__(self, *, value: bytes | None = ..., steps: int | None = ..., loss: float | None = ..., probability: float | None = ..., length: float | None = ..., at_first_token: bool | None = ...) -> None: ...
    class MassEditKeys(Message):
        keys: Repeated[bytes]
        residual: bytes
        at_first_token: bool
        def __init__(self, *, keys: Iterable[bytes] | None = ..., residual: bytes | None = ..., at_first_token: bool | None = ...) -> None: ...
    class MassEditSolved(Message):
        factor: v1.LowRankFactor
        figures: Repeated[v1.NamedNumber]
        warnings: Repeated[str]
        solve: v1.EditSolve
        keys: v1.EditKeys
        groups: Repeated[int]
        def __init__(self, *, factor: v1.LowRankFactor | None = ..., figures: Iterable[v1.NamedNumber] | None = ..., warnings: Iterable[str] | None = ..., solve: v1.EditSolve | None = ..., keys: v1.EditKeys | None = ..., groups: Iterable[int] | None = ...) -> None: ...
    class MassEditFact(Message):
        request: v1.EditRequest
        probes: Repeated[v1.EditProbe]
        neighbour_drifts: Repeated[float]
        batch: int
        def __init__(self, *, request: v1.EditRequest | None = ..., probes: Iterable[v1.EditProbe] | None = ..., neighbour_drifts: Iterable[float] | None = ..., batch: int | None = ...) -> None: ...
    class MassEditChecked(Message):
        class Layer(Message):
            layer: int
            tokens: int
            figures: Repeated[v1.NamedNumber]
            def __init__(self, *, layer: int | None = ..., tokens: int | None = ..., figures: Iterable[v1.NamedNumber] | None = ...) -> None: ...
        class Key(Message):
            fact: str
            facts: int
            leverage: Repeated[float]
            share: Repeated[float]
            def __init__(self, *, fact: str | None = ..., facts: int | None = ..., leverage: Iterable[float] | None = ..., share: Iterable[float] | None = ...) -> None: ...
        class Pair(Message):
            one: str
            other: str
            layer: int
            cosine: float
            def __init__(self, *, one: str | None = ..., other: str | None = ..., layer: int | None = ..., cosine: float | None = ...) -> None: ...
        class Shared(Message):
            text: str
            facts: Repeated[str]
            def __init__(self, *, text: str | None = ..., facts: Iterable[str] | None = ...) -> None: ...
        batch: int
        facts: int
        keys: int
        layers: Repeated[v1.MassEditChecked.Layer]
        worst: Repeated[v1.MassEditChecked.Key]
        near: Repeated[v1.MassEditChecked.Pair]
        near_count: int
        shared: Repeated[v1.MassEditChecked.Shared]
        shared_count: int
        first_tokens: Repeated[str]
        first_token_count: int
        overwritten: Repeated[v1.OverwrittenFact]
        overwritten_count: int
        warnings: Repeated[str]
        left_out: int
        def __init__(self, *, batch: int | None = ..., facts: int | None = ..., keys: int | None = ..., layers: Iterable[v1.MassEditChecked.Layer] | None = ..., worst: Iterable[v1.MassEditChecked.Key] | None = ..., near: Iterable[v1.MassEditChecked.Pair] | None = ..., near_count: int | None = ..., shared: Iterable[v1.MassEditChecked.Shared] | None = ..., shared_count: int | None = ..., first_tokens: Iterable[str] | None = ..., first_token_count: int | None = ..., overwritten: Iterable[v1.OverwrittenFact] | None = ..., overwritten_count: int | None = ..., warnings: Iterable[str] | None = ..., left_out: int | None = ...) -> None: ...
    class Job(Message):
        name: str
        model: str
        trace: v1.TraceSpec
        generate: v1.GenerateSpec
        stats: v1.StatsSpec
        edit: v1.EditSpec
        eval: v1.EvalSpec
        mass_edit: v1.MassEditSpec
        state: int
        counts: v1.JobCounts
        create_time: Any
        start_time: Any
        end_time: Any
        display_name: str
        priority: int
        last_sequence: int
        no_cache: bool
        owner: str
        version: str
        stages: Repeated[v1.JobStage]
        trace_parent: str
        def __init__(self, *, name: str | None = ..., model: str | None = ..., trace: v1.TraceSpec | None = ..., generate: v1.GenerateSpec | None = ..., stats: v1.StatsSpec | None = ..., edit: v1.EditSpec | None = ..., eval: v1.EvalSpec | None = ..., mass_edit: v1.MassEditSpec | None = ..., state: int | None = ..., counts: v1.JobCounts | None = ..., create_time: Any | None = ..., start_time: Any | None = ..., end_time: Any | None = ..., display_name: str | None = ..., priority: int | None = ..., last_sequence: int | None = ..., no_cache: bool | None = ..., owner: str | None = ..., version: str | None = ..., stages: Iterable[v1.JobStage] | None = ..., trace_parent: str | None = ...) -> None: ...
    class JobStage(Message):
        stage: int
        title: str
        units: int
        units_done: int
        units_failed: int
        tasks: int
        tasks_ended: int
        units_cached: int
        def __init__(self, *, stage: int | None = ..., title: str | None = ..., units: int | None = ..., units_done: int | None = ..., units_failed: int | None = ..., tasks: int | None = ..., tasks_ended: int | None = ..., units_cached: int | None = ...) -> None: ...
    class JobCounts(Message):
        tasks: int
        tasks_pending: int
        tasks_leased: int
        tasks_done: int
        tasks_failed: int
        tasks_cancelled: int
        units: int
        units_done: int
        units_failed: int
        units_cached: int
        tasks_quarantined: int
        stages: int
        stages_done: int
        def __init__(self, *, tasks: int | None = ..., tasks_pending: int | None = ..., tasks_leased: int | None = ..., tasks_done: int | None = ..., tasks_failed: int | None = ..., tasks_cancelled: int | None = ..., units: int | None = ..., units_done: int | None = ..., units_failed: int | None = ..., units_cached: int | None = ..., tasks_quarantined: int | None = ..., stages: int | None = ..., stages_done: int | None = ...) -> None: ...
    class Task(Message):
        name: str
        state: int
        first_unit: int
        unit_count: int
        units_done: int
        worker: str
        epoch: int
        failures: Repeated[v1.FailureCount]
        last_failure: str
        estimated_cost: float
        second_worker: str
        second_epoch: int
        stage: int
        def __init__(self, *, name: str | None = ..., state: int | None = ..., first_unit: int | None = ..., unit_count: int | None = ..., units_done: int | None = ..., worker: str | None = ..., epoch: int | None = ..., failures: Iterable[v1.FailureCount] | None = ..., last_failure: str | None = ..., estimated_cost: float | None = ..., second_worker: str | None = ..., second_epoch: int | None = ..., stage: int | None = ...) -> None: ...
    class FailureCount(Message):
        failure_class: int
        count: int
        def __init__(self, *, failure_class: int | None = ..., count: int | None = ...) -> None: ...
    class UnitResult(Message):
        unit: int
        grid: v1.Grid
        completion: v1.Completion
        noise_level: v1.NoiseLevel
        failure: v1.Failure
        stats_shard: v1.StatsShard
        edit: v1.EditOutcome
        eval: v1.EvalOutcome
        stats_sum: v1.StatsSum
        mass_edit_contexts: v1.MassEditContexts
        mass_edit_target: v1.MassEditTarget
        mass_edit_keys: v1.MassEditKeys
        mass_edit_solved: v1.MassEditSolved
        mass_edit_fact: v1.MassEditFact
        mass_edit_checked: v1.MassEditChecked
        def __init__(self, *, unit: int | None = ..., grid: v1.Grid | None = ..., completion: v1.Completion | None = ..., noise_level: v1.NoiseLevel | None = ..., failure: v1.Failure | None = ..., stats_shard: v1.StatsShard | None = ..., edit: v1.EditOutcome | None = ..., eval: v1.EvalOutcome | None = ..., stats_sum: v1.StatsSum | None = ..., mass_edit_contexts: v1.MassEditContexts | None = ..., mass_edit_target: v1.MassEditTarget | None = ..., mass_edit_keys: v1.MassEditKeys | None = ..., mass_edit_solved: v1.MassEditSolved | None = ..., mass_edit_fact: v1.MassEditFact | None = ..., mass_edit_checked: v1.MassEditChecked | None = ...) -> None: ...
    class Failure(Message):
        failure_class: int
        message: str
        def __init__(self, *, failure_class: int | None = ..., message: str | None = ...) -> None: ...
    class Fingerprint(Message):
        device: str
        dtype: str
        threads: int
        libtorch: str
        engine_revision: int
        batch_memory: int
        def __init__(self, *, device: str | None = ..., dtype: str | None = ..., threads: int | None = ..., libtorch: str | None = ..., engine_revision: int | None = ..., batch_memory: int | None = ...) -> None: ...
    class JobEvent(Message):
        sequence: int
        time: Any
        state: int
        unit_committed: int
        task: v1.Task
        units_cached: int
        stage_begun: int
        def __init__(self, *, sequence: int | None = ..., time: Any | None = ..., state: int | None = ..., unit_committed: int | None = ..., task: v1.Task | None = ..., units_cached: int | None = ..., stage_begun: int | None = ...) -> None: ...
    class JobProgress(Message):
        steps_running: int
        steps_per_second: float
        workers: int
        edits: Repeated[v1.EditProgress]
        stage: v1.JobStage
        def __init__(self, *, steps_running: int | None = ..., steps_per_second: float | None = ..., workers: int | None = ..., edits: Iterable[v1.EditProgress] | None = ..., stage: v1.JobStage | None = ...) -> None: ...
    class CreateJobRequest(Message):
        job: v1.Job
        request_id: str
        validate_only: bool
        def __init__(self, *, job: v1.Job | None = ..., request_id: str | None = ..., validate_only: bool | None = ...) -> None: ...
    class CreateJobResponse(Message):
        job: v1.Job
        def __init__(self, *, job: v1.Job | None = ...) -> None: ...
    class GetJobRequest(Message):
        name: str
        def __init__(self, *, name: str | None = ...) -> None: ...
    class GetJobResponse(Message):
        job: v1.Job
        def __init__(self, *, job: v1.Job | None = ...) -> None: ...
    class ListJobsRequest(Message):
        page_size: int
        page_token: str
        states: Repeated[int]
        owner: str
        model: str
        kind: int
        text: str
        def __init__(self, *, page_size: int | None = ..., page_token: str | None = ..., states: Iterable[int] | None = ..., owner: str | None = ..., model: str | None = ..., kind: int | None = ..., text: str | None = ...) -> None: ...
    class ListJobsResponse(Message):
        jobs: Repeated[v1.Job]
        next_page_token: str
        total_size: int
        def __init__(self, *, jobs: Iterable[v1.Job] | None = ..., next_page_token: str | None = ..., total_size: int | None = ...) -> None: ...
    class CancelJobRequest(Message):
        name: str
        def __init__(self, *, name: str | None = ...) -> None: ...
    class CancelJobResponse(Message):
        job: v1.Job
        def __init__(self, *, job: v1.Job | None = ...) -> None: ...
    class RequeueQuarantinedRequest(Message):
        name: str
        def __init__(self, *, name: str | None = ...) -> None: ...
    class RequeueQuarantinedResponse(Message):
        job: v1.Job
        tasks_requeued: int
        def __init__(self, *, job: v1.Job | None = ..., tasks_requeued: int | None = ...) -> None: ...
    class WatchJobRequest(Message):
        name: str
        after_sequence: int
        def __init__(self, *, name: str | None = ..., after_sequence: int | None = ...) -> None: ...
    class WatchJobResponse(Message):
        events: Repeated[v1.JobEvent]
        job: v1.Job
        progress: v1.JobProgress
        def __init__(self, *, events: Iterable[v1.JobEvent] | None = ..., job: v1.Job | None = ..., progress: v1.JobProgress | None = ...) -> None: ...
    class ListTasksRequest(Message):
        parent: str
        page_size: int
        page_token: str
        states: Repeated[int]
        def __init__(self, *, parent: str | None = ..., page_size: int | None = ..., page_token: str | None = ..., states: Iterable[int] | None = ...) -> None: ...
    class ListTasksResponse(Message):
        tasks: Repeated[v1.Task]
        next_page_token: str
        def __init__(self, *, tasks: Iterable[v1.Task] | None = ..., next_page_token: str | None = ...) -> None: ...
    class ExplainJobRequest(Message):
        name: str
        def __init__(self, *, name: str | None = ...) -> None: ...
    class ExplainJobResponse(Message):
        reasons: Repeated[str]
        def __init__(self, *, reasons: Iterable[str] | None = ...) -> None: ...
    class ListResultsRequest(Message):
        parent: str
        page_size: int
        page_token: str
        view: int
        kind: int
        relation: str
        correct: bool
        failures_only: bool
        first_unit: int
        def __init__(self, *, parent: str | None = ..., page_size: int | None = ..., page_token: str | None = ..., view: int | None = ..., kind: int | None = ..., relation: str | None = ..., correct: bool | None = ..., failures_only: bool | None = ..., first_unit: int | None = ...) -> None: ...
    class ListResultsResponse(Message):
        results: Repeated[v1.UnitResult]
        next_page_token: str
        fingerprints: Repeated[v1.FingerprintCount]
        def __init__(self, *, results: Iterable[v1.UnitResult] | None = ..., next_page_token: str | None = ..., fingerprints: Iterable[v1.FingerprintCount] | None = ...) -> None: ...
    class FingerprintCount(Message):
        fingerprint: v1.Fingerprint
        results: int
        def __init__(self, *, fingerprint: v1.Fingerprint | None = ..., results: int | None = ...) -> None: ...
    class GetSweepSummaryRequest(Message):
        name: str
        kinds: Repeated[int]
        by_relation: bool
        relation: str
        def __init__(self, *, name: str | None = ..., kinds: Iterable[int] | None = ..., by_relation: bool | None = ..., relation: str | None = ...) -> None: ...
    class GetSweepSummaryResponse(Message):
        averages: Repeated[v1.KindAverages]
        units: int
        last_sequence: int
        def __init__(self, *, averages: Iterable[v1.KindAverages] | None = ..., units: int | None = ..., last_sequence: int | None = ...) -> None: ...
    class Model(Message):
        class Shape(Message):
            layers: int
            width: int
            heads: int
            vocabulary: int
            context: int
            parameters: int
            block_parameters: int
            def __init__(self, *, layers: int | None = ..., width: int | None = ..., heads: int | None = ..., vocabulary: int | None = ..., context: int | None = ..., parameters: int | None = ..., block_parameters: int | None = ...) -> None: ...
        class File(Message):
            file_name: str
            digest: str
            size: int
            source_path: str
            def __init__(self, *, file_name: str | None = ..., digest: str | None = ..., size: int | None = ..., source_path: str | None = ...) -> None: ...
        class Tensor(Message):
            tensor_name: str
            dtype: str
            dimensions: Repeated[int]
            digest: str
            def __init__(self, *, tensor_name: str | None = ..., dtype: str | None = ..., dimensions: Iterable[int] | None = ..., digest: str | None = ...) -> None: ...
        name: str
        family: str
        shape: v1.Model.Shape
        files: Repeated[v1.Model.File]
        tensors: Repeated[v1.Model.Tensor]
        create_time: Any
        digest: str
        def __init__(self, *, name: str | None = ..., family: str | None = ..., shape: v1.Model.Shape | None = ..., files: Iterable[v1.Model.File] | None = ..., tensors: Iterable[v1.Model.Tensor] | None = ..., create_time: Any | None = ..., digest: str | None = ...) -> None: ...
    class CreateModelRequest(Message):
        model_id: str
        model: v1.Model
        def __init__(self, *, model_id: str | None = ..., model: v1.Model | None = ...) -> None: ...
    class CreateModelResponse(Message):
        model: v1.Model
        def __init__(self, *, model: v1.Model | None = ...) -> None: ...
    class GetModelRequest(Message):
        name: str
        def __init__(self, *, name: str | None = ...) -> None: ...
    class GetModelResponse(Message):
        model: v1.Model
        def __init__(self, *, model: v1.Model | None = ...) -> None: ...
    class ListModelsRequest(Message):
        page_size: int
        page_token: str
        def __init__(self, *, page_size: int | None = ..., page_token: str | None = ...) -> None: ...
    class ListModelsResponse(Message):
        models: Repeated[v1.Model]
        next_page_token: str
        def __init__(self, *, models: Iterable[v1.Model] | None = ..., next_page_token: str | None = ...) -> None: ...
    class QueryObjectRequest(Message):
        digest: str
        def __init__(self, *, digest: str | None = ...) -> None: ...
    class QueryObjectResponse(Message):
        committed_size: int
        complete: bool
        def __init__(self, *, committed_size: int | None = ..., complete: bool | None = ...) -> None: ...
    class ReadObjectRequest(Message):
        digest: str
        offset: int
        def __init__(self, *, digest: str | None = ..., offset: int | None = ...) -> None: ...
    class ReadObjectResponse(Message):
        data: bytes
        def __init__(self, *, data: bytes | None = ...) -> None: ...
    class WriteObjectRequest(Message):
        digest: str
        size: int
        offset: int
        data: bytes
        def __init__(self, *, digest: str | None = ..., size: int | None = ..., offset: int | None = ..., data: bytes | None = ...) -> None: ...
    class WriteObjectResponse(Message):
        committed_size: int
        def __init__(self, *, committed_size: int | None = ...) -> None: ...
    class GetStatusRequest(Message):
        def __init__(self) -> None: ...
    class GetStatusResponse(Message):
        status: v1.Status
        def __init__(self, *, status: v1.Status | None = ...) -> None: ...
    class Status(Message):
        version: str
        protocol: int
        start_time: Any
        time: Any
        caller: v1.Caller
        scheduler: v1.SchedulerStatus
        store: v1.StoreStatus
        invariants: Repeated[v1.InvariantStatus]
        def __init__(self, *, version: str | None = ..., protocol: int | None = ..., start_time: Any | None = ..., time: Any | None = ..., caller: v1.Caller | None = ..., scheduler: v1.SchedulerStatus | None = ..., store: v1.StoreStatus | None = ..., invariants: Iterable[v1.InvariantStatus] | None = ...) -> None: ...
    class Caller(Message):
        principal: str
        role: str
        methods: Repeated[str]
        def __init__(self, *, principal: str | None = ..., role: str | None = ..., methods: Iterable[str] | None = ...) -> None: ...
    class JobStateCount(Message):
        state: int
        count: int
        def __init__(self, *, state: int | None = ..., count: int | None = ...) -> None: ...
    class WorkerCounts(Message):
        idle: int
        busy: int
        draining: int
        excluded: int
        away: int
        def __init__(self, *, idle: int | None = ..., busy: int | None = ..., draining: int | None = ..., excluded: int | None = ..., away: int | None = ...) -> None: ...
    class SchedulerStatus(Message):
        jobs: Repeated[v1.JobStateCount]
        counts: v1.JobCounts
        queue_depth: int
        leases: int
        workers: v1.WorkerCounts
        steps_per_second: float
        measured_rate: float
        units_committed: int
        tasks_completed: int
        multiply_adds: float
        leases_given: int
        failures: Repeated[v1.FailureCount]
        retries: int
        divergences: int
        def __init__(self, *, jobs: Iterable[v1.JobStateCount] | None = ..., counts: v1.JobCounts | None = ..., queue_depth: int | None = ..., leases: int | None = ..., workers: v1.WorkerCounts | None = ..., steps_per_second: float | None = ..., measured_rate: float | None = ..., units_committed: int | None = ..., tasks_completed: int | None = ..., multiply_adds: float | None = ..., leases_given: int | None = ..., failures: Iterable[v1.FailureCount] | None = ..., retries: int | None = ..., divergences: int | None = ...) -> None: ...
    class StoreStatus(Message):
        format: int
        record_bytes: int
        objects: int
        object_bytes: int
        free_bytes: int
        flushes: int
        audit_entries: int
        models: int
        versions: int
        problem: str
        def __init__(self, *, format: int | None = ..., record_bytes: int | None = ..., objects: int | None = ..., object_bytes: int | None = ..., free_bytes: int | None = ..., flushes: int | None = ..., audit_entries: int | None = ..., models: int | None = ..., versions: int | None = ..., problem: str | None = ...) -> None: ...
    class InvariantStatus(Message):
        invariant: str
        violations: int
        def __init__(self, *, invariant: str | None = ..., violations: int | None = ...) -> None: ...
    class CollectObjectsRequest(Message):
        dry_run: bool
        min_age: Any
        def __init__(self, *, dry_run: bool | None = ..., min_age: Any | None = ...) -> None: ...
    class CollectObjectsResponse(Message):
        reached: int
        young: int
        removed: int
        removed_bytes: int
        partial: int
        partial_bytes: int
        def __init__(self, *, reached: int | None = ..., young: int | None = ..., removed: int | None = ..., removed_bytes: int | None = ..., partial: int | None = ..., partial_bytes: int | None = ...) -> None: ...
    class LeaseKey(Message):
        task: str
        epoch: int
        def __init__(self, *, task: str | None = ..., epoch: int | None = ...) -> None: ...
    class ConnectRequest(Message):
        hello: v1.Hello
        credits: v1.Credits
        heartbeat: v1.Heartbeat
        commit: v1.Commit
        task_end: v1.TaskEnd
        drain: v1.Drain
        def __init__(self, *, hello: v1.Hello | None = ..., credits: v1.Credits | None = ..., heartbeat: v1.Heartbeat | None = ..., commit: v1.Commit | None = ..., task_end: v1.TaskEnd | None = ..., drain: v1.Drain | None = ...) -> None: ...
    class Hello(Message):
        worker_id: str
        protocol: int
        capabilities: v1.Capabilities
        held: Repeated[v1.LeaseKey]
        credits: int
        valid_until: Any
        def __init__(self, *, worker_id: str | None = ..., protocol: int | None = ..., capabilities: v1.Capabilities | None = ..., held: Iterable[v1.LeaseKey] | None = ..., credits: int | None = ..., valid_until: Any | None = ...) -> None: ...
    class Capabilities(Message):
        device: str
        memory: int
        threads: int
        host: str
        pid: int
        version: str
        loaded_models: Repeated[str]
        dtypes: Repeated[int]
        device_memory: int
        def __init__(self, *, device: str | None = ..., memory: int | None = ..., threads: int | None = ..., host: str | None = ..., pid: int | None = ..., version: str | None = ..., loaded_models: Iterable[str] | None = ..., dtypes: Iterable[int] | None = ..., device_memory: int | None = ...) -> None: ...
    class Credits(Message):
        credits: int
        def __init__(self, *, credits: int | None = ...) -> None: ...
    class Heartbeat(Message):
        leases: Repeated[v1.LeaseProgress]
        loaded_models: Repeated[str]
        def __init__(self, *, leases: Iterable[v1.LeaseProgress] | None = ..., loaded_models: Iterable[str] | None = ...) -> None: ...
    class LeaseProgress(Message):
        lease: v1.LeaseKey
        steps: int
        steps_per_second: float
        edit: v1.EditProgress
        def __init__(self, *, lease: v1.LeaseKey | None = ..., steps: int | None = ..., steps_per_second: float | None = ..., edit: v1.EditProgress | None = ...) -> None: ...
    class Commit(Message):
        lease: v1.LeaseKey
        unit: int
        result: bytes
        fingerprint: v1.Fingerprint
        def __init__(self, *, lease: v1.LeaseKey | None = ..., unit: int | None = ..., result: bytes | None = ..., fingerprint: v1.Fingerprint | None = ...) -> None: ...
    class TaskEnd(Message):
        lease: v1.LeaseKey
        failure: v1.Failure
        trace_parent: str
        def __init__(self, *, lease: v1.LeaseKey | None = ..., failure: v1.Failure | None = ..., trace_parent: str | None = ...) -> None: ...
    class Drain(Message):
        reason: str
        def __init__(self, *, reason: str | None = ...) -> None: ...
    class ConnectResponse(Message):
        welcome: v1.Welcome
        lease: v1.Lease
        commit_ack: v1.CommitAck
        cancel_lease: v1.CancelLease
        drain: v1.Drain
        def __init__(self, *, welcome: v1.Welcome | None = ..., lease: v1.Lease | None = ..., commit_ack: v1.CommitAck | None = ..., cancel_lease: v1.CancelLease | None = ..., drain: v1.Drain | None = ...) -> None: ...
    class Welcome(Message):
        adopted: Repeated[v1.LeaseKey]
        heartbeat_interval_ms: int
        version: str
        def __init__(self, *, adopted: Iterable[v1.LeaseKey] | None = ..., heartbeat_interval_ms: int | None = ..., version: str | None = ...) -> None: ...
    class Lease(Message):
        key: v1.LeaseKey
        model: v1.Model
        trace: v1.TraceSpec
        generate: v1.GenerateSpec
        stats: v1.StatsSpec
        edit: v1.EditSpec
        eval: v1.EvalSpec
        mass_edit: v1.MassEditSpec
        units: Repeated[v1.LeasedUnit]
        noise_scale: float
        version: str
        trace_parent: str
        def __init__(self, *, key: v1.LeaseKey | None = ..., model: v1.Model | None = ..., trace: v1.TraceSpec | None = ..., generate: v1.GenerateSpec | None = ..., stats: v1.StatsSpec | None = ..., edit: v1.EditSpec | None = ..., eval: v1.EvalSpec | None = ..., mass_edit: v1.MassEditSpec | None = ..., units: Iterable[v1.LeasedUnit] | None = ..., noise_scale: float | None = ..., version: str | None = ..., trace_parent: str | None = ...) -> None: ...
    class LeasedUnit(Message):
        unit: int
        trace: v1.TraceUnit
        generate: v1.GenerateUnit
        noise: v1.NoiseUnit
        stats: v1.StatsUnit
        edit: v1.EditTask
        eval: v1.EvalRecord
        stats_sum: v1.StatsSumUnit
        mass_edit: v1.MassEditUnit
        def __init__(self, *, unit: int | None = ..., trace: v1.TraceUnit | None = ..., generate: v1.GenerateUnit | None = ..., noise: v1.NoiseUnit | None = ..., stats: v1.StatsUnit | None = ..., edit: v1.EditTask | None = ..., eval: v1.EvalRecord | None = ..., stats_sum: v1.StatsSumUnit | None = ..., mass_edit: v1.MassEditUnit | None = ...) -> None: ...
    class CommitAck(Message):
        lease: v1.LeaseKey
        unit: int
        accepted: bool
        def __init__(self, *, lease: v1.LeaseKey | None = ..., unit: int | None = ..., accepted: bool | None = ...) -> None: ...
    class CancelLease(Message):
        lease: v1.LeaseKey
        def __init__(self, *, lease: v1.LeaseKey | None = ...) -> None: ...
    class Worker(Message):
        name: str
        capabilities: v1.Capabilities
        connected: bool
        draining: bool
        credits: int
        leases: Repeated[v1.LeaseProgress]
        connect_time: Any
        units_committed: int
        excluded: str
        measured_rate: float
        valid_until: Any
        def __init__(self, *, name: str | None = ..., capabilities: v1.Capabilities | None = ..., connected: bool | None = ..., draining: bool | None = ..., credits: int | None = ..., leases: Iterable[v1.LeaseProgress] | None = ..., connect_time: Any | None = ..., units_committed: int | None = ..., excluded: str | None = ..., measured_rate: float | None = ..., valid_until: Any | None = ...) -> None: ...
    class ReadResultsRequest(Message):
        lease: v1.LeaseKey
        units: v1.UnitRange
        def __init__(self, *, lease: v1.LeaseKey | None = ..., units: v1.UnitRange | None = ...) -> None: ...
    class ReadResultsResponse(Message):
        results: Repeated[v1.UnitResult]
        def __init__(self, *, results: Iterable[v1.UnitResult] | None = ...) -> None: ...
    class DrainWorkerRequest(Message):
        name: str
        def __init__(self, *, name: str | None = ...) -> None: ...
    class DrainWorkerResponse(Message):
        worker: v1.Worker
        def __init__(self, *, worker: v1.Worker | None = ...) -> None: ...
    class ReadmitWorkerRequest(Message):
        name: str
        def __init__(self, *, name: str | None = ...) -> None: ...
    class ReadmitWorkerResponse(Message):
        worker: v1.Worker
        def __init__(self, *, worker: v1.Worker | None = ...) -> None: ...
    class ListWorkersRequest(Message):
        page_size: int
        page_token: str
        def __init__(self, *, page_size: int | None = ..., page_token: str | None = ...) -> None: ...
    class ListWorkersResponse(Message):
        workers: Repeated[v1.Worker]
        next_page_token: str
        def __init__(self, *, workers: Iterable[v1.Worker] | None = ..., next_page_token: str | None = ...) -> None: ...

PACKAGE: str
METHODS: dict[str, Method]
class Method(NamedTuple):
    path: str
    request: Any
    response: Any
    takes_stream: bool
    gives_stream: bool
def has_field(message: str, field: str) -> bool: ...
def word(message: Any, field: str) -> str: ...
def value_word(enum: Any, value: int) -> str: ...
def number(enum: str, value: str | None) -> int: ...
def words_of(message: Any, field: str) -> tuple[str, ...]: ...
def optional(message: Any, field: str) -> Any: ...
def time(message: Any, field: str) -> datetime | None: ...
def stamp(moment: datetime) -> Any: ...
