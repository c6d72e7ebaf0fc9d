"""The averages of a sweep as a coordinator computes them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import wire
from .averages import Averages, Mean
from .kinds import is_of_heads
from .paths import Paths
from .results import direction_of, engine_of, metric_of
from .roles import roles_of


@dataclass(frozen=True)
class SweepSummary:
    """Averages, and what they are over."""

    averages: tuple[Averages, ...]
    #: Units that had a result, and the job's last event, when it was computed.
    units: int
    last_sequence: int

    @classmethod
    def of(cls, message: Any) -> SweepSummary:
        """A summary from the contract's."""
        field = "kinds" if hasattr(message, "kinds") else "averages"
        averages = tuple(_averages(it) for it in getattr(message, field))
        return cls(averages, message.units, message.last_sequence)


def _mean(message: Any) -> Mean:
    return Mean(message.rows, message.mean, wire.optional(message, "half_width"))


def _averages(it: Any) -> Averages:
    kind = wire.word(it, "kind")
    roles = roles_of(kind)
    of_role = (max(it.heads, 1), it.layers) if is_of_heads(kind) else (it.layers,)
    cells = math.prod(of_role)
    effect, half, share = (np.full((len(roles), cells), np.nan) for _ in range(3))
    rows = [0] * len(roles)
    for one in _roles(it):
        at = roles.index(wire.word(one, "role").replace("_", " "))
        for cell, mean in enumerate(_mean(m) for m in one.by_layer):
            rows[at] = mean.rows
            if mean.rows:
                effect[at, cell] = mean.mean
            if mean.half_width is not None:
                half[at, cell] = mean.half_width
        for cell, of_total in enumerate(one.share):
            if of_total.rows:
                share[at, cell] = of_total.mean
    effect, half, share = (of.reshape((len(roles), *of_role)) for of in (effect, half, share))
    return Averages(
        kind=kind,
        relation=it.relation or None,
        layers=it.layers,
        wrong=it.wrong,
        clean=_mean(it.clean),
        corrupted=_mean(it.corrupted),
        total_effect=_mean(it.total_effect),
        rows=tuple(rows),
        effect=effect,
        half_width=half,
        metric=metric_of(it),
        direction=direction_of(it),
        engine=engine_of(it),
        integrated=max(it.attribution_steps, 1),
        grad_drop=it.grad_drop,
        whole_answers=it.whole_answers,
        share=share,
        without_share=it.without_share,
        paths=Paths.of(it),
    )


def _roles(it: Any) -> Any:
    return getattr(it, "roles", None) or getattr(it, "effects", ())
