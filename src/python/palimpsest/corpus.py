"""Texts on their way to statistics: as lines of an object, cut into pieces."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

#: Tokens of a piece that is drawn from the model, as the command line cuts them.
_DRAWN = 8192
#: Bytes of a piece of texts.
_PIECE = 256 << 10


def lines(texts: Sequence[str]) -> bytes:
    """Texts as a corpus has them: a JSON string a line."""
    if isinstance(texts, str):
        raise TypeError("give a list of texts")
    return b"".join(json.dumps(text, ensure_ascii=False).encode() + b"\n" for text in texts)


def draws(tokens: int, seed: int) -> Iterator[tuple[int, int]]:
    """The pieces of so many tokens that are drawn: how many, and their seeds."""
    for at in range(0, tokens, _DRAWN):
        yield min(_DRAWN, tokens - at), seed + at


def ranges(whole: bytes) -> Iterator[tuple[int, int]]:
    """Where the pieces of a corpus begin, and their bytes: whole lines."""
    start = 0
    while start < len(whole):
        end = whole.find(b"\n", min(start + _PIECE, len(whole) - 1)) + 1
        yield start, end - start
        start = end
