"""Receipts: what a job was asked and what it came to, checked with nothing but a key."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import blake3, errors, merkle
from .values import AuditEntry
from .wire import v1

_HEAD = "palimpsest-receipt/1"
_NAMES = ("job", "state", "model", "files", "version", "asked")


@dataclass(frozen=True)
class Receipt:
    """A receipt that holds: it is signed, and the job's entry is in the audit log."""

    #: The job, how it ended, the model, the digest of its files, and the version that it ran on.
    job: str
    state: str
    model: str
    files: str
    version: str
    #: How many results there are, and the root over them.
    results: int
    root: bytes = field(repr=False)
    #: What computed how many of them.
    computed: tuple[tuple[int, str], ...]
    #: What was asked, as the contract has it: the job's model, version and spec.
    asked: Any = field(repr=False)
    #: The audit log's entry of the job, and the checkpoint that it is under.
    entry: AuditEntry = field(repr=False)
    checkpoint: merkle.Note = field(repr=False)
    #: The results, as the contract has them, held against the root; None where none were given.
    answers: tuple[Any, ...] | None = field(repr=False, default=None)

    def __str__(self) -> str:
        held = "which were not given" if self.answers is None else "which are those that were given"
        return f"{self.job} on {self.version}: {self.results} results, {held}"


def verify_receipt(
    receipt: str | os.PathLike[str] | Mapping[str, Any],
    key: str,
    *,
    results: Sequence[bytes | Any] | None = None,
) -> Receipt:
    """Checks a receipt offline: its signature, what was asked, that the job's entry is in the audit
    log, and the results, if there are any with it.

    Args:
        receipt: a file that ``palimpsest job receipt`` or ``job.receipt()`` made, or what is in it.
        key: the audit log's key, as ``palimpsest audit key`` prints it where the store is; not the
            one that the receipt names.
        results: what ``job.results()`` gave; by default those in the receipt.

    Raises:
        AuditBroken: something does not hold; the error says what.
    """
    try:
        return _verified(receipt, key, results)
    except ValueError as error:
        raise errors.AuditBroken((str(error),)) from None


def made(message: Any, results: Sequence[Any] | None) -> dict[str, Any]:
    """A receipt of the contract's, as a file has it."""
    told: dict[str, Any] = {
        "receipt": message.note,
        "verifier_key": message.verifier_key,
        "asked": _text(message.asked),
        "entry": _text(message.entry.leaf),
        "path": [bytes(it).hex() for it in message.path],
        "checkpoint": message.checkpoint.note,
    }
    if results is not None:
        told["results"] = [_text(_bytes_of(it)) for it in results]
    return told


def _verified(
    receipt: str | os.PathLike[str] | Mapping[str, Any],
    key: str,
    results: Sequence[bytes | Any] | None,
) -> Receipt:
    told = receipt
    if not isinstance(told, Mapping):
        told = json.loads(Path(told).read_text(encoding="utf-8"))
    if not isinstance(told, Mapping):
        raise ValueError("the receipt is no JSON object")
    _, text = merkle.read_signed(_field(told, "receipt"), key, "the receipt")
    said, computed = _lines(text)
    asked = _decoded(told, "asked")
    if blake3.digest(asked) != said["asked"]:
        raise ValueError("what was asked is something else than what the receipt is of")
    leaf = _decoded(told, "entry")
    place, hashed = _counted(said["entry"])
    if merkle.leaf_hash(leaf).hex() != hashed:
        raise ValueError("the entry of the audit log is not the one that the receipt names")
    try:
        entry = AuditEntry.of(v1.AuditLeaf(leaf=leaf))
        job = v1.Job.FromString(asked)
    except Exception as error:  # protobuf's own, which is no ValueError
        raise ValueError(f"what was asked, or the entry, cannot be read: {error}") from None
    if (entry.sequence, entry.resource, entry.action) != (place, said["job"], "jobs.create"):
        raise ValueError("the entry of the audit log is not of the receipt's job")
    checkpoint = merkle.read_note(_field(told, "checkpoint"), key)
    path = [bytes.fromhex(it) for it in told.get("path", ())]
    under = (place - 1, checkpoint.size, path, checkpoint.root)
    if not merkle.is_included(bytes.fromhex(hashed), *under):
        raise ValueError("the job's entry is not in the audit log under its checkpoint")
    count, root = _counted(said["results"])
    given = results
    if given is None and "results" in told:
        given = [base64.b64decode(it, validate=True) for it in told["results"]]
    answers = None if given is None else _answers(given, count, root)
    return Receipt(
        said["job"],
        said["state"],
        said["model"],
        said["files"],
        said["version"],
        count,
        bytes.fromhex(root),
        tuple(computed),
        job,
        entry,
        checkpoint,
        answers,
    )


def _answers(given: Sequence[bytes | Any], count: int, root: str) -> tuple[Any, ...]:
    frontier = merkle.Frontier()
    whole = [_bytes_of(it) for it in given]
    for it in whole:
        frontier.push(merkle.leaf_hash(it))
    if frontier.size != count:
        raise ValueError(f"the receipt is of {count} results, these are {frontier.size}")
    if frontier.root().hex() != root:
        raise ValueError("the receipt's results are not these: one was altered, or is elsewhere")
    return tuple(v1.UnitResult.FromString(it) for it in whole)


def _lines(text: str) -> tuple[dict[str, str], list[tuple[int, str]]]:
    """The lines of a receipt, which come in one order."""
    head, *lines = text.removesuffix("\n").split("\n")
    said: dict[str, str] = {}
    computed: list[tuple[int, str]] = []
    names: list[str] = []
    for line in lines:
        name, _, value = line.partition(" ")
        if name == "computed":
            computed.append(_counted(value))
        said[name] = value
        names.append(name)
    expected = [*_NAMES, "results", *(["computed"] * len(computed)), "entry"]
    if head != _HEAD or names != expected:
        raise ValueError("the receipt's lines are not those of one")
    return said, computed


def _counted(text: str) -> tuple[int, str]:
    count, gap, rest = text.partition(" ")
    if not gap or not count.isdigit():
        raise ValueError("the receipt's lines are not those of one")
    return int(count), rest


def _bytes_of(result: bytes | Any) -> bytes:
    if isinstance(result, bytes):
        return result
    return bytes(result.SerializeToString(deterministic=True))


def _field(told: Mapping[str, Any], name: str) -> str:
    value = told.get(name)
    if not isinstance(value, str):
        raise ValueError(f"the receipt has no {name!r}")
    return value


def _decoded(told: Mapping[str, Any], name: str) -> bytes:
    return base64.b64decode(_field(told, name), validate=True)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
