"""How good estimates are: some of a grid's cells patched exactly, and what they say of the others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt


class Verified(NamedTuple):
    """A cell of an estimated grid with its exact scores."""

    #: Its token; 0 where every token is patched at once.
    at: int
    layer: int
    #: Whether chance chose it; else its estimate is one of the largest.
    random: bool
    #: The exact scores: of the grid's metric, then of its readings.
    exact: tuple[float, ...]
    #: Its head, where heads are told apart.
    head: int | None = None
    #: Its neuron, and the estimates as ``exact``, in grids of neurons.
    neuron: int | None = None
    estimate: tuple[float, ...] = ()

    @classmethod
    def of(cls, message: Any) -> Verified:
        """A cell from the contract's."""
        return cls(
            at=message.token,
            layer=message.layer,
            random=message.random,
            exact=tuple(message.exact),
            head=message.head if message.HasField("head") else None,
            neuron=message.neuron if message.HasField("neuron") else None,
            estimate=tuple(message.estimate),
        )


class Miss(NamedTuple):
    """An estimated effect beside the exact one (its magnitude where estimates have no sign)."""

    at: int
    layer: int
    estimate: float
    exact: float
    head: int | None = None
    neuron: int | None = None


class Missed(NamedTuple):
    """What the cells by chance say of all that are not among the largest estimates."""

    #: The largest magnitude of an exact effect among them.
    effect: float
    #: At most this part of the cells outside the largest estimates has a larger one, at 95 %.
    part: float


@dataclass(frozen=True)
class Verification:
    """What the verified cells of a grid say, in the grid's metric."""

    #: Cells of the largest estimates, and cells by chance.
    top: int
    random: int
    #: Spearman's correlation of the estimated effects with the exact ones; None where all of
    #: either are equal.
    rank_correlation: float | None
    #: The cell whose estimate is furthest from its exact effect.
    largest_miss: Miss
    #: None without a cell by chance.
    missed: Missed | None

    @classmethod
    def over(cls, cells: Sequence[tuple[Miss, bool]]) -> Verification | None:
        """Of cells and whether chance chose them; None of none."""
        if not cells:
            return None
        by_chance = [abs(miss.exact) for miss, random in cells if random]
        missed = None
        if by_chance:
            missed = Missed(max(by_chance), 1.0 - 0.05 ** (1.0 / len(by_chance)))
        misses = [miss for miss, _ in cells]
        return cls(
            top=len(cells) - len(by_chance),
            random=len(by_chance),
            rank_correlation=rank_correlation(
                [it.estimate for it in misses], [it.exact for it in misses]
            ),
            largest_miss=max(misses, key=lambda it: abs(it.estimate - it.exact)),
            missed=missed,
        )

    def __str__(self) -> str:
        miss = self.largest_miss
        ranks = "none" if self.rank_correlation is None else f"{self.rank_correlation:.3f}"
        said = (
            f"{self.top} + {self.random} verified: rank correlation {ranks}, largest miss "
            f"{abs(miss.estimate - miss.exact):.3f} at token {miss.at}, layer {miss.layer}"
        )
        said += "" if miss.head is None else f", head {miss.head}"
        said += "" if miss.neuron is None else f", neuron {miss.neuron}"
        if self.missed is not None:
            percent = math.ceil(self.missed.part * 100)
            said += f"; of the rest at most {percent} % over {self.missed.effect:.3f}"
        return said


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Spearman's rank correlation, equal values sharing the mean of their ranks; None where all
    values of a side are equal."""
    a, b = _ranks(one), _ranks(other)
    spread = math.sqrt(float((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / spread if spread > 0 else None


def _ranks(values: Sequence[float]) -> npt.NDArray[np.float64]:
    """The ranks less their mean."""
    found = np.asarray(values, dtype=np.float64)
    _, place, counts = np.unique(found, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: npt.NDArray[np.float64] = (last - (counts - 1) / 2.0)[place.reshape(-1)]
    return ranks - (len(found) + 1) / 2.0
