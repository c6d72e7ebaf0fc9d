"""What a token is to the subject of a prompt."""

from __future__ import annotations

from typing import Literal, TypeAlias

from .kinds import is_over_tokens

Role: TypeAlias = Literal[
    "first subject",
    "middle subject",
    "last subject",
    "first subsequent",
    "further",
    "last",
    "every",
]
#: The roles of single tokens, in the order of a prompt.
ROLES: tuple[Role, ...] = (
    "first subject",
    "middle subject",
    "last subject",
    "first subsequent",
    "further",
    "last",
)
#: All tokens at once: the only role of kinds whose cells restore them so.
EVERY: Role = "every"


def roles_of(kind: str) -> tuple[Role, ...]:
    """The roles that grids of a kind tell apart."""
    return (EVERY,) if is_over_tokens(kind) else ROLES


def role_tokens(role: Role, subject: slice, tokens: int) -> range:
    """The tokens of a prompt that have a role; a token may have two."""
    b, e = subject.start, subject.stop
    return {
        "first subject": range(b, b + 1),
        "middle subject": range(b + 1, max(e - 1, b + 1)),
        "last subject": range(e - 1, e),
        "first subsequent": range(e, min(tokens, e + 1)),
        "further": range(e + 1, max(tokens - 1, e + 1)),
        "last": range(tokens - 1, tokens),
        "every": range(tokens),
    }[role]
