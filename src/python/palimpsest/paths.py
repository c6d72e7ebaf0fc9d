"""Paths from the heads of a grid into inputs of other heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from . import wire
from .wire import v1

_INPUTS = {"q": "query", "k": "key", "v": "value"}
_LETTERS = {word: letter for letter, word in _INPUTS.items()}
#: Receivers that titles name.
_SHOWN = 4


@dataclass(frozen=True)
class Paths:
    """The paths along which heads were patched."""

    #: Where they end: ``9.6.q`` is the query of head 6 of layer 9; k and v are of key-value heads.
    receivers: tuple[str, ...]
    #: Whether the MLPs on the way were held as the other heads were.
    frozen_mlps: bool = False

    @classmethod
    def of(cls, message: Any) -> Paths | None:
        """The paths of a grid or of averages; None where they have none."""
        sent = wire.optional(message, "paths")
        if sent is None:
            return None
        receivers = tuple(
            f"{it.layer}.{it.head}.{_LETTERS.get(wire.word(it, 'input'), '?')}"
            for it in sent.receivers
        )
        return cls(receivers, sent.frozen_mlps)

    def __str__(self) -> str:
        shown, more = self.receivers[:_SHOWN], len(self.receivers) - _SHOWN
        said = f"{'directly ' if self.frozen_mlps else ''}into {', '.join(shown)}"
        return said if more <= 0 else f"{said} and {more} more"


def paths_to(receivers: Sequence[str], frozen_mlps: bool) -> Any:
    """Paths as the contract has them.

    Raises:
        ValueError: a receiver is none.
    """
    sent = v1.Paths(frozen_mlps=frozen_mlps)
    for text in receivers:
        layer, _, rest = text.partition(".")
        head, _, letter = rest.partition(".")
        if not (layer.isdecimal() and head.isdecimal() and letter in _INPUTS):
            raise ValueError(
                f"{text!r} is no receiver: write LAYER.HEAD.q, .k or .v, such as 9.6.q for the "
                "query of head 6 of layer 9"
            )
        number = wire.number("HeadInput", _INPUTS[letter])
        sent.receivers.add(layer=int(layer), head=int(head), input=number)
    return sent
