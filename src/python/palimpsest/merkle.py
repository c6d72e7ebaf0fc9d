"""Proofs of the audit log, checked here and not believed: RFC 6962's tree and signed notes.

Written without the server's code and without a library: what one of them gets wrong, the other
notices.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = [
    "Frontier",
    "Note",
    "is_consistent",
    "is_included",
    "leaf_hash",
    "read_note",
    "read_signed",
    "verify",
]


def leaf_hash(data: bytes) -> bytes:
    """The hash of a leaf."""
    return hashlib.sha256(b"\x00" + data).digest()


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


class Frontier:
    """A tree that grows: the roots of its whole subtrees, which is all that a root needs."""

    def __init__(self) -> None:
        self.size = 0
        self._peaks: list[bytes] = []

    def push(self, leaf: bytes) -> None:
        """Adds a leaf's hash."""
        size = self.size
        while size & 1:
            leaf = _node(self._peaks.pop(), leaf)
            size >>= 1
        self._peaks.append(leaf)
        self.size += 1

    def root(self) -> bytes:
        """The root over all leaves so far."""
        if not self._peaks:
            return hashlib.sha256(b"").digest()
        root = self._peaks[-1]
        for left in reversed(self._peaks[:-1]):
            root = _node(left, root)
        return root


def is_included(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Whether ``path`` proves a leaf to be number ``index`` of the tree (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    at, last, value = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            return False
        if at & 1 or at == last:
            value = _node(sibling, value)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            value = _node(value, sibling)
        at, last = at >> 1, last >> 1
    return last == 0 and value == root


def is_consistent(
    old_size: int, old_root: bytes, new_size: int, new_root: bytes, path: Sequence[bytes]
) -> bool:
    """Whether ``path`` proves that the newer tree goes on from the older (RFC 9162, 2.1.4.2)."""
    if old_size == 0:
        return not path and old_root == hashlib.sha256(b"").digest()
    if old_size >= new_size:
        return old_size == new_size and not path and old_root == new_root
    hashes = list(path)
    if old_size & (old_size - 1) == 0:
        hashes.insert(0, old_root)
    if not hashes:
        return False
    at, last = old_size - 1, new_size - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    old = new = hashes[0]
    for value in hashes[1:]:
        if last == 0:
            return False
        if at & 1 or at == last:
            old, new = _node(value, old), _node(value, new)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            new = _node(new, value)
        at, last = at >> 1, last >> 1
    return last == 0 and old == old_root and new == new_root


@dataclass(frozen=True)
class Note:
    """What a checkpoint says, once its signature was found good."""

    origin: str
    size: int
    root: bytes


def read_note(note: str, key: str) -> Note:
    """Reads a checkpoint (C2SP tlog-checkpoint) and checks its signature.

    Raises:
        ValueError: the note or the key is malformed, or the note is not signed by the key.
    """
    name, text = read_signed(note, key, "the checkpoint")
    parts = text.splitlines()
    if len(parts) < 3 or parts[0] != name or not parts[1].isdigit():
        raise ValueError("the checkpoint's lines are not origin, size and root")
    root = _base64(parts[2], "the checkpoint's root")
    if len(root) != 32:
        raise ValueError("the checkpoint's root is no SHA-256")
    return Note(parts[0], int(parts[1]), root)


def read_signed(note: str, key: str, what: str) -> tuple[str, str]:
    """The name of a key, and the text of a note that it signed.

    Raises:
        ValueError: the note or the key is malformed, or the note is not signed by the key.
    """
    name, public = _verifier(key)
    text, gap, signatures = note.partition("\n\n")
    if not gap:
        raise ValueError(f"{what} has no empty line before a signature")
    text += "\n"
    prefix = f"\u2014 {name} "
    lines = [line for line in signatures.splitlines() if line.startswith(prefix)]
    if not lines:
        raise ValueError(f"{what} is not signed by {name}")
    signed = _base64(lines[0][len(prefix) :], f"the signature of {what}")
    if len(signed) != 68 or signed[:4] != _key_hash(name, public):
        raise ValueError(f"the signature of {what} is of another key")
    if not verify(public, text.encode(), signed[4:]):
        raise ValueError(f"the signature of {what} does not fit: it was altered")
    return name, text


def _verifier(key: str) -> tuple[str, bytes]:
    parts = key.strip().split("+", 2)
    if len(parts) != 3:
        raise ValueError("the verifier key has not three parts: see 'palimpsest audit key'")
    typed = _base64(parts[2], "the verifier key")
    public = typed[1:]
    if len(typed) != 33 or typed[0] != 1 or parts[1] != _key_hash(parts[0], public).hex():
        raise ValueError("the verifier key is no ed25519 key of its name")
    return parts[0], public


def _key_hash(name: str, public: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n\x01" + public).digest()[:4]


def _base64(text: str, what: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise ValueError(f"{what} is not base64") from None


# ed25519, RFC 8032, section 6: only what verifies. Nothing secret is handled, so the time that it
# takes tells nobody anything.
_P = 2**255 - 19
_Q = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, _P - 2, _P) % _P
_ROOT_OF_MINUS_ONE = pow(2, (_P - 1) // 4, _P)
_Point = tuple[int, int, int, int]


def _add(a: _Point, b: _Point) -> _Point:
    left = (a[1] - a[0]) * (b[1] - b[0]) % _P
    right = (a[1] + a[0]) * (b[1] + b[0]) % _P
    c, d = 2 * a[3] * b[3] * _D % _P, 2 * a[2] * b[2] % _P
    e, f, g, h = right - left, d - c, d + c, right + left
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _times(scalar: int, point: _Point) -> _Point:
    sum_: _Point = (0, 1, 1, 0)
    while scalar:
        if scalar & 1:
            sum_ = _add(sum_, point)
        point, scalar = _add(point, point), scalar >> 1
    return sum_


def _equal(a: _Point, b: _Point) -> bool:
    return (a[0] * b[2] - b[0] * a[2]) % _P == 0 and (a[1] * b[2] - b[1] * a[2]) % _P == 0


def _point(data: bytes) -> _Point | None:
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & ((1 << 255) - 1)
    if y >= _P:
        return None
    square = (y * y - 1) * pow(_D * y * y + 1, _P - 2, _P) % _P
    if square == 0:
        return None if sign else (0, y, 1, 0)
    x = pow(square, (_P + 3) // 8, _P)
    if (x * x - square) % _P:
        x = x * _ROOT_OF_MINUS_ONE % _P
    if (x * x - square) % _P:
        return None
    if x & 1 != sign:
        x = _P - x
    return x, y, 1, x * y % _P


_BASE_Y = 4 * pow(5, _P - 2, _P) % _P
_BASE = _point(_BASE_Y.to_bytes(32, "little"))


def verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether an ed25519 signature is of this key over this message."""
    if len(public) != 32 or len(signature) != 64 or _BASE is None:
        return False
    key, point = _point(public), _point(signature[:32])
    scalar = int.from_bytes(signature[32:], "little")
    if key is None or point is None or scalar >= _Q:
        return False
    # A key of small order would take any message: such are refused, as strict verifiers do.
    if _equal(_times(8, key), (0, 1, 1, 0)) or _equal(_times(8, point), (0, 1, 1, 0)):
        return False
    digest = hashlib.sha512(signature[:32] + public + message).digest()
    hashed = int.from_bytes(digest, "little") % _Q
    return _equal(_times(scalar, _BASE), _add(point, _times(hashed, key)))
