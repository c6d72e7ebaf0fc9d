# Made from _async/audit.py by unasync.py: change that one.
"""The audit log: who changed what, when and why; proved to the reader, not believed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from .. import errors, known_logs, merkle, wire
from ..values import AuditEntry, Checkpoint
from ..wire import v1
from . import bridge
from .transport import Transport


@dataclass(frozen=True)
class Report:
    """What was proved: the log holds ``entries`` entries, all of which were read and hashed."""

    entries: int
    root: bytes
    checkpoint: Checkpoint
    #: Entries of the log that this one was proved to go on from; None where none was kept.
    since: int | None
    #: The key that signed, and whether it was seen here for the first time.
    key: str
    first_seen: bool

    def __str__(self) -> str:
        grew = "" if self.since is None else f", and goes on from {self.since} that were kept"
        trust = "; its key is seen for the first time" if self.first_seen else ""
        return f"the log of {self.entries} entries holds{grew}{trust}"


@dataclass(frozen=True)
class Proof:
    """That an entry is in the log: can be kept, and checked by anybody, offline."""

    entry: AuditEntry
    path: tuple[bytes, ...]
    checkpoint: Checkpoint

    def check(self, key: str) -> merkle.Note:
        """Checks it against a key that is known to be the log's.

        Raises:
            AuditBroken: it does not hold.
        """
        try:
            note = merkle.read_note(self.checkpoint.note, key)
        except ValueError as error:
            raise errors.AuditBroken((str(error),)) from None
        index = self.entry.sequence - 1
        if not merkle.is_included(_leaf(self.entry), index, note.size, self.path, note.root):
            raise errors.AuditBroken((f"entry {self.entry.sequence} is not in the log",))
        return note


class Audit:
    """The audit log."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def entries(
        self,
        *,
        principal: str = "",
        action: str = "",
        resource: str = "",
        outcome: str | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
    ) -> list[AuditEntry]:
        """Entries, the oldest first, that pass all filters. ``action="refs"`` is every
        ``refs.*``; ``resource="models/gpt2"`` is everything below it, too."""
        request = v1.ListAuditEntriesRequest(
            page_size=1000,
            principal=principal,
            action=action,
            resource=resource,
            outcome=wire.number("AuditOutcome", outcome),
            start_time=None if start is None else wire.stamp(start),
            end_time=None if end is None else wire.stamp(end),
        )
        leaves = self._transport.pages("AuditService/ListAuditEntries", request, "leaves")
        return [AuditEntry.of(it) for it in leaves]

    def watch(self, after: int = 0) -> Iterator[AuditEntry]:
        """Entries as they are made, for ever, from the one after ``after`` on. A coordinator that
        is restarted meanwhile is waited for, and no entry is lost or told twice."""
        turn = 0
        while True:
            request = v1.WatchAuditEntriesRequest(after_sequence=after)
            try:
                stream = self._transport.stream("AuditService/WatchAuditEntries", request)
                for update in stream:
                    turn = 0
                    for leaf in update.leaves:
                        entry = AuditEntry.of(leaf)
                        after = entry.sequence
                        yield entry
            except (errors.Unavailable, errors.Internal):
                if turn > 6 and turn * 2.0 > self._transport.patience:
                    raise
            bridge.sleep(min(0.1 * 2.0**turn, 2.0))
            turn += 1

    def checkpoint(self) -> Checkpoint:
        """The newest checkpoint, as it is signed. Keep its ``note``: ``verify(since=note)``."""
        request = v1.GetAuditCheckpointRequest()
        told = self._transport.call("AuditService/GetAuditCheckpoint", request)
        return _checkpoint(told.checkpoint)

    def prove(self, sequence: int) -> Proof:
        """The proof that an entry is in the log; ``check`` says whether it holds."""
        request = v1.ProveAuditEntryRequest(sequence=sequence)
        told = self._transport.call("AuditService/ProveAuditEntry", request)
        path = tuple(bytes(it) for it in told.path)
        return Proof(AuditEntry.of(told.leaf), path, _checkpoint(told.checkpoint))

    def verify(self, since: str | None = "kept", key: str | None = None) -> Report:
        """Reads the whole log, hashes it, and holds it against its newest checkpoint: the
        signature, the root, and that it only grew since what was kept. Nothing of that is the
        server's word.

        Args:
            since: ``"kept"`` for the checkpoint of the last time, kept a server in
                ``~/.config/palimpsest/known_logs``; a checkpoint's note; or None.
            key: the log's key, as ``palimpsest audit key`` prints it where the store is. By
                default the one that was seen first, as ssh does with hosts.

        Raises:
            AuditBroken: something does not hold; the error says what.
        """
        address = self._transport.settings.target
        known = known_logs.read(address)
        checkpoint = self.checkpoint()
        trusted = key or (known.key if known else checkpoint.verifier_key)
        if trusted.strip() != checkpoint.verifier_key.strip():
            raise errors.AuditBroken(
                (
                    "the log is signed by another key than the one that is known: "
                    f"{checkpoint.verifier_key} in place of {trusted}; if the store is another "
                    f"one, remove the line of {address} from {known_logs.path()}",
                )
            )
        problems: list[str] = []
        try:
            note = merkle.read_note(checkpoint.note, trusted)
        except ValueError as error:
            raise errors.AuditBroken((str(error),)) from None
        frontier = merkle.Frontier()
        request = v1.ListAuditEntriesRequest(page_size=1000)
        leaves = self._transport.pages("AuditService/ListAuditEntries", request, "leaves")
        for leaf in leaves:
            if frontier.size == note.size:
                break  # made since the checkpoint was signed
            entry = AuditEntry.of(leaf)
            if entry.sequence != frontier.size + 1:
                problems.append(f"entry {frontier.size + 1} is missing: {entry.sequence} follows")
                break
            # An entry vouches for those before it, so that damage is found where it is.
            vouched = bytes(leaf.entry.previous_root) if entry.leaf is None else _previous(entry)
            if vouched and vouched != frontier.root():
                problems.append(f"entry {frontier.size} or one before it was altered")
                break
            frontier.push(_leaf(entry))
        if not problems and (frontier.size, frontier.root()) != (note.size, note.root):
            problems.append(
                f"the {frontier.size} entries are not those of the checkpoint of {note.size}: "
                "one of them was altered, or some are missing"
            )
        grown_from = self._consistent(since, known, trusted, note, problems)
        if problems:
            raise errors.AuditBroken(tuple(problems))
        known_logs.write(address, known_logs.Known(trusted, note.size, note.root))
        return Report(note.size, note.root, checkpoint, grown_from, trusted, known is None)

    def _consistent(
        self,
        since: str | None,
        known: known_logs.Known | None,
        key: str,
        note: merkle.Note,
        problems: list[str],
    ) -> int | None:
        """How long the log was that this one goes on from; says what is wrong with that."""
        if since is None or (since == "kept" and known is None):
            return None
        if since == "kept" and known is not None:
            size, root = known.size, known.root
        else:
            try:
                old = merkle.read_note(since, key)
            except ValueError as error:
                problems.append(f"the kept checkpoint: {error}")
                return None
            size, root = old.size, old.root
        if size > note.size:
            problems.append(f"the log had {size} entries, and now has {note.size}")
            return size
        request = v1.ProveAuditConsistencyRequest(old_size=size)
        told = self._transport.call("AuditService/ProveAuditConsistency", request)
        try:
            newer = merkle.read_note(told.checkpoint.note, key)
        except ValueError as error:
            problems.append(str(error))
            return size
        path = [bytes(it) for it in told.path]
        if not merkle.is_consistent(size, root, newer.size, newer.root, path):
            problems.append(f"the first {size} entries are not those that were kept")
        elif newer.size == note.size and newer.root != note.root:
            problems.append("two checkpoints of the same size differ")
        return size


def _leaf(entry: AuditEntry) -> bytes:
    return entry.hash if entry.leaf is None else merkle.leaf_hash(entry.leaf)


def _previous(entry: AuditEntry) -> bytes:
    return bytes(v1.AuditEntry.FromString(entry.leaf or b"").previous_root)


def _checkpoint(message: Any) -> Checkpoint:
    return Checkpoint(message.note, message.size, bytes(message.root), message.verifier_key)
