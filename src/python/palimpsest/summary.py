"""The averages of a sweep as a coordinator computes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from . import wire
from .averages import Averages, Mean
from .results import direction_of, metric_of
from .roles import ROLES


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
    effect = np.full((len(ROLES), it.layers), np.nan)
    half = np.full((len(ROLES), it.layers), np.nan)
    share = np.full((len(ROLES), it.layers), np.nan)
    rows = [0] * len(ROLES)
    for one in _roles(it):
        at = ROLES.index(wire.word(one, "role").replace("_", " "))
        for layer, mean in enumerate(_mean(m) for m in one.by_layer):
            rows[at] = mean.rows
            if mean.rows:
                effect[at, layer] = mean.mean
            if mean.half_width is not None:
                half[at, layer] = mean.half_width
        for layer, of_total in enumerate(one.share):
            if of_total.rows:
                share[at, layer] = of_total.mean
    return Averages(
        kind=wire.word(it, "kind"),
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
        share=share,
        without_share=it.without_share,
    )


def _roles(it: Any) -> Any:
    return getattr(it, "roles", None) or getattr(it, "effects", ())
