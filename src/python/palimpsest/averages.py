"""Averages over facts by the role of a token: the command line's numbers, to the bit."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .kinds import is_of_heads, is_over_tokens
from .paths import Paths
from .results import Direction, Engine, Grid, Metric, estimate_of
from .roles import ROLES, Role, role_tokens, roles_of
from .svg import Svg, curves_of_averages, map_of_averages

_NORMAL = 1.959963984540054


class Mean(NamedTuple):
    """A mean with what is known of its error."""

    rows: int
    mean: float
    #: Half of the 95 % interval, rows taken as independent; None under two rows.
    half_width: float | None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval."""
        if self.half_width is None:
            return None
        return self.mean - self.half_width, self.mean + self.half_width

    def __repr__(self) -> str:
        band = "" if self.half_width is None else f" ± {self.half_width:.3g}"
        return f"{self.mean:.3g}{band} ({self.rows} rows)"


class _Welford:
    """Means over rows of numbers: sums of squares would cancel."""

    def __init__(self, *shape: int) -> None:
        self.rows = 0
        self.mean: npt.NDArray[np.float64] = np.zeros(shape)
        self.squares: npt.NDArray[np.float64] = np.zeros(shape)

    def add(self, row: npt.NDArray[np.float64] | float) -> None:
        self.rows += 1
        delta = row - self.mean
        self.mean = self.mean + delta / self.rows
        self.squares = self.squares + delta * (row - self.mean)

    def half_width(self) -> npt.NDArray[np.float64] | None:
        if self.rows < 2:
            return None
        half: npt.NDArray[np.float64] = _NORMAL * np.sqrt(
            self.squares / (self.rows - 1.0) / self.rows
        )
        return half

    def at(self, place: int = 0) -> Mean:
        half = self.half_width()
        return Mean(
            self.rows, float(self.mean[place]), None if half is None else float(half[place])
        )


@dataclass(frozen=True)
class Site:
    """Where an effect peaks."""

    role: Role
    layer: int
    effect: Mean
    #: The layers around whose mean effect lies in the peak's interval.
    within: range
    #: The head, where heads are told apart.
    head: int | None = None

    def __str__(self) -> str:
        head = "" if self.head is None else f", head {self.head}"
        return f"{self.role} token, layer {self.layer}{head}: {self.effect}"


@dataclass(frozen=True)
class Averages:
    """Averages of one kind, metric, direction and engine over the facts that the model answered as
    expected. Effects are differences of the metric: ``Grid.effect``."""

    kind: str
    relation: str | None
    layers: int
    #: Facts that were answered otherwise, or had nothing to be corrupted with, and so not taken
    #: in.
    wrong: int
    clean: Mean
    corrupted: Mean
    total_effect: Mean
    #: Rows of each role, in the order of ``roles``.
    rows: tuple[int, ...]
    #: Average indirect effects, [role, layer], of heads [role, head, layer]; NaN for a role that no
    #: token had.
    effect: npt.NDArray[np.float64]
    #: Half widths of their 95 % intervals, in the same shape; NaN under two rows.
    half_width: npt.NDArray[np.float64]
    metric: Metric = "probability"
    direction: Direction = "denoising"
    #: How the scores were computed, as a grid says it.
    engine: Engine = "exact"
    integrated: int = 1
    grad_drop: bool = False
    #: Whether answers were read whole.
    whole_answers: bool = False
    #: The effects as shares of their fact's total effect, in the same shape, over the facts where
    #: that is large enough to divide by; NaN where there are none.
    share: npt.NDArray[np.float64] | None = None
    #: Facts whose total effect is too small to divide by.
    without_share: int = 0
    #: The paths along which the heads were patched, where they were.
    paths: Paths | None = None

    @classmethod
    def over(cls, grids: Iterable[Grid], relation: str | None = None) -> Averages | None:
        """The averages over grids of one kind, metric, direction and engine, in their order; None
        over none.

        Raises:
            ValueError: they are of several.
        """
        made: _Sums | None = None
        for grid in grids:
            made = made or _Sums(grid)
            made.add(grid)
        return None if made is None else made.averages(relation)

    @property
    def roles(self) -> tuple[Role, ...]:
        """The roles that are told apart."""
        return roles_of(self.kind)

    def mean(self, role: Role, layer: int, head: int | None = None) -> Mean:
        """The average indirect effect of a role at a layer, of heads of one of them."""
        at = self.roles.index(role)
        cell = (at, layer) if head is None else (at, head, layer)
        half = float(self.half_width[cell])
        return Mean(self.rows[at], float(self.effect[cell]), None if math.isnan(half) else half)

    def peak(self, role: Role) -> Site | None:
        """The layer, and the head, where a role's effect is highest, the first of equals."""
        at = self.roles.index(role)
        if self.rows[at] == 0 or self.layers == 0:
            return None
        row, layer = divmod(int(np.argmax(self.effect[at])), self.layers)
        head = row if is_of_heads(self.kind) else None
        effects = self.effect[at] if head is None else self.effect[at, head]
        effect = self.mean(role, layer, head)
        first = last = layer
        if effect.interval is not None:
            least = effect.interval[0]
            while first > 0 and effects[first - 1] >= least:
                first -= 1
            while last + 1 < self.layers and effects[last + 1] >= least:
                last += 1
        return Site(role, layer, effect, range(first, last + 1), head)

    def locate(self) -> Site | None:
        """The role and layer with the highest effect; None when no fact was taken in."""
        best: Site | None = None
        for role in self.roles:
            site = self.peak(role)
            if site is not None and (best is None or site.effect.mean > best.effect.mean):
                best = site
        return best

    def plot(self) -> Svg:
        """Curves over layers with their 95 % bands, one a role: figure 2 of the paper.

        Raises:
            ValueError: they are of heads, which are too many for curves.
        """
        if is_of_heads(self.kind):
            raise ValueError(f"{self.kind} has a curve a head, which are too many: use map()")
        return curves_of_averages(
            self.kind,
            self._roles(),
            self.effect,
            self.half_width,
            self.metric,
            self.direction,
            self.estimate,
            self.whole_answers,
        )

    def map(self, role: Role | None = None) -> Svg:
        """A heat map by role and layer (figure 2); of heads one by head and layer of a role, by
        default that of the highest effect."""
        roles, effect = self._roles(), self.effect
        if is_of_heads(self.kind):
            site = self.locate()
            shown = role or (site.role if site else None)
            if shown is None or shown not in roles:
                raise ValueError(f"no token has the role {shown}: there is nothing to draw")
            at = roles.index(shown)
            roles, effect = roles[at : at + 1], effect[at : at + 1]
        return map_of_averages(
            self.kind,
            roles,
            effect,
            self.metric,
            self.direction,
            self.paths,
            self.estimate,
            self.whole_answers,
        )

    @property
    def estimate(self) -> str | None:
        """What the scores are where they are estimates; None of exact ones."""
        return estimate_of(self.engine, self.integrated, self.grad_drop)

    def _roles(self) -> list[Role | None]:
        """The role of each row; None for one that no token had."""
        return [role if rows else None for role, rows in zip(self.roles, self.rows)]

    def __repr__(self) -> str:
        of = f", {self.relation}" if self.relation else ""
        of += "" if self.paths is None else f", {self.paths}"
        of += "" if self.metric == "probability" else f", {self.metric}"
        of += "" if self.direction == "denoising" else f", {self.direction}"
        of += ", whole answers" if self.whole_answers else ""
        of += "" if self.estimate is None else f", {self.estimate}"
        site = self.locate()
        the = "" if is_over_tokens(self.kind) else "the "
        peak = f"; peaks at {the}{site}" if site else ""
        return f"<{self.kind}{of}: total effect {self.total_effect}{peak}>"

    def _repr_svg_(self) -> str:
        return str(self.map() if is_of_heads(self.kind) else self.plot())


class _Sums:
    def __init__(self, like: Grid) -> None:
        self.kind, self.layers, self.wrong = like.kind, like.layers, 0
        self.heads = like.heads
        self.metric: Metric = like.metric
        self.direction: Direction = like.direction
        self.paths = like.paths
        self.whole_answers = like.whole_answers
        self.engine = (like.engine, like.integrated, like.grad_drop)
        self.without_share = 0
        self.runs = [_Welford(1) for _ in range(3)]
        self._rows()

    def _rows(self) -> None:
        roles, shape = roles_of(self.kind), self._shape()
        self.roles = [_Welford(*shape) for _ in roles]
        self.shares = [_Welford(*shape) for _ in roles]

    def _shape(self) -> tuple[int, ...]:
        return (self.heads, self.layers) if is_of_heads(self.kind) else (self.layers,)

    def add(self, grid: Grid) -> None:
        if (grid.metric, grid.direction) != (self.metric, self.direction):
            raise ValueError(
                f"{grid.prompt!r} is of {grid.metric} in {grid.direction}, others are of "
                f"{self.metric} in {self.direction}: average them apart"
            )
        if grid.paths != self.paths:
            raise ValueError(
                f"{grid.prompt!r} is patched {grid.paths or 'whole'}, others "
                f"{self.paths or 'whole'}: average them apart"
            )
        if (grid.engine, grid.integrated, grid.grad_drop) != self.engine:
            raise ValueError(
                f"{grid.prompt!r} is {grid.estimate or grid.engine}, others are "
                f"{estimate_of(*self.engine) or self.engine[0]}: average them apart"
            )
        if grid.whole_answers != self.whole_answers:
            raise ValueError(
                f"{grid.prompt!r} is not of whole answers as others are, or the other way round: "
                "average them apart"
            )
        if not grid.traced:
            self.wrong += 1
            return
        if self.layers == 0:  # the first grids were of facts that were not traced
            self.layers, self.heads = grid.layers, grid.heads
            self._rows()
        if (grid.kind, grid.layers, grid.heads) != (self.kind, self.layers, self.heads):
            raise ValueError(
                f"{grid.prompt!r} is of {grid.kind} in {grid.layers} layers of {grid.heads} cells, "
                f"others are of {self.kind} in {self.layers} of {self.heads}: average them apart"
            )
        for mean, value in zip(self.runs, (grid.clean, grid.corrupted, grid.total_effect)):
            mean.add(value)
        effect, share = grid.effect, grid.share
        self.without_share += share is None
        if is_over_tokens(self.kind):  # a row in the place of all tokens
            self.roles[0].add(effect)
            if share is not None:
                self.shares[0].add(share)
            return
        for role, sums, shares in zip(ROLES, self.roles, self.shares):
            for token in role_tokens(role, grid.subject, len(grid.tokens)):
                sums.add(effect[token])
                if share is not None:
                    shares.add(share[token])

    def averages(self, relation: str | None) -> Averages:
        nothing = np.full(self._shape(), np.nan)
        halves = [it.half_width() for it in self.roles]
        return Averages(
            kind=self.kind,
            relation=relation,
            layers=self.layers,
            wrong=self.wrong,
            clean=self.runs[0].at(),
            corrupted=self.runs[1].at(),
            total_effect=self.runs[2].at(),
            rows=tuple(it.rows for it in self.roles),
            effect=np.stack([it.mean if it.rows else nothing for it in self.roles]),
            half_width=np.stack([nothing if it is None else it for it in halves]),
            metric=self.metric,
            direction=self.direction,
            engine=self.engine[0],
            integrated=self.engine[1],
            grad_drop=self.engine[2],
            whole_answers=self.whole_answers,
            share=np.stack([it.mean if it.rows else nothing for it in self.shares]),
            without_share=self.without_share,
            paths=self.paths,
        )
