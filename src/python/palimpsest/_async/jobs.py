"""Jobs by what they do, with their results as arrays, frames and values."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from .. import frames, npz, wire
from ..averages import Averages, Mean, Site
from ..evaluation import Measures
from ..kinds import Kind
from ..notebook import Html, sweep_html
from ..results import (
    METRICS,
    Checked,
    Completion,
    Evaluated,
    Failure,
    Grid,
    Measured,
    Metric,
    failure_of,
)
from ..summary import SweepSummary
from ..values import Edit, Plan
from ..wire import v1
from .job import AsyncJob
from .transport import AsyncTransport

#: Facts up to which a sweep's grids are read when it has been waited for, to be shown.
SHOWN = 4


class AsyncSweep(AsyncJob):
    """A causal trace of facts: a grid a fact and kind."""

    async def grids(
        self,
        kind: Kind | None = None,
        relation: str | None = None,
        correct: bool | None = None,
        metric: Metric = "probability",
    ) -> list[Grid]:
        """Its grids in the order of facts and kinds, all or some, in a metric that it was asked
        for; facts that were not traced have grids without scores.

        Raises:
            LookupError: the sweep does not have the metric.
        """
        return [
            grid.in_metric(metric)
            for grid in self._grids_of(await self._all_results())
            if (kind is None or grid.kind == kind)
            and (relation is None or (grid.relation or "") == relation)
            and (correct is None or grid.correct == correct)
        ]

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics that it shows."""
        asked = dict.fromkeys(wire.words_of(self.spec, "metrics"))
        return tuple(it for word in asked for it in METRICS if it == word) or ("probability",)

    async def grid(
        self, fact: int = 0, kind: Kind = "mlp", metric: Metric = "probability"
    ) -> Grid:
        """The grid of a fact, counted from 0, and a kind.

        Raises:
            LookupError: there is none: the fact failed, or the kind or metric was not traced.
        """
        kinds = wire.words_of(self.spec, "kinds")
        if kind not in kinds:
            raise LookupError(f"{kind} was not traced: {', '.join(kinds)} were")
        unit = fact * len(kinds) + kinds.index(kind)
        for it in await self._all_results():
            if it.unit == unit and it.WhichOneof("outcome") == "grid":
                return Grid.of(unit, it.grid, self.model).in_metric(metric)
            if it.unit == unit and it.WhichOneof("outcome") == "failure":
                raise LookupError(f"fact {fact}, {kind}, failed: {it.failure.message}")
        raise LookupError(f"fact {fact}, {kind}, has no result")

    async def peaks(self, kind: Kind | None = None) -> list[Grid]:
        """Its grids without their scores, each with its peak: little, for sweeps of many facts.
        (A coordinator that does not know of peaks gives whole grids.)"""
        found = self._unit_results(kind=kind, peaks=True)
        return [
            Grid.of(it.unit, it.grid, self.model)
            async for it in found
            if it.WhichOneof("outcome") == "grid"
        ]

    async def averages(self, by: Literal["relation"] | None = None) -> AveragesOfKinds:
        """Averages over facts by the role of a token, of each kind and metric; or of each
        relation, too. Computed here, from the grids: the same numbers as the command line's."""
        groups: dict[tuple[str, str | None, str], list[Grid]] = {}
        for grid in await self.grids():
            relation = grid.relation if by == "relation" else None
            for metric in self.metrics:
                shown = grid.in_metric(metric)
                groups.setdefault((grid.kind, relation, metric), []).append(shown)
        made = [Averages.over(grids, key[1]) for key, grids in groups.items()]
        return AveragesOfKinds(it for it in made if it is not None)

    async def summary(
        self,
        kinds: Sequence[Kind] = (),
        by: Literal["relation"] | None = None,
        relation: str | None = None,
    ) -> SweepSummary:
        """The averages as the coordinator computes them, without a grid on the way: of all kinds
        or some; over all facts, by relation, or over those of one (``""``: those without).

        Raises:
            Error: the coordinator, or this package's contract, does not have it.
        """
        request = v1.GetSweepSummaryRequest(name=self.name, relation=relation)
        request.kinds.extend(wire.number("Kind", kind) for kind in kinds)
        request.by_relation = by == "relation"
        told = await self._transport.call("JobService/GetSweepSummary", request)
        return SweepSummary.of(told)

    async def locate(self, metric: Metric = "probability") -> Site:
        """Where an edit of these facts belongs: the layer where restoring the MLPs at the last
        token of the subject brings most back. ``within``: the layers that the facts cannot tell
        from it.

        Raises:
            LookupError: no MLP was traced, or no fact was answered as expected.
        """
        made = Averages.over(await self.grids(kind="mlp", metric=metric))
        site = None if made is None else made.peak("last subject")
        if site is None:
            raise LookupError("no fact has a trace of its MLPs: trace some with kinds=['mlp']")
        return site

    async def to_pandas(self, long: bool = False, metric: Metric = "probability") -> Any:
        """A DataFrame: a row a grid with its peak, or (``long``) a row a cell."""
        return frames.to_pandas(await self.grids(metric=metric), long)

    async def to_xarray(
        self, align: Literal["role", "pad"] = "role", metric: Metric = "probability"
    ) -> Any:
        """A Dataset: ``effect[fact, kind, role, layer]``, means over the tokens of a role; or
        (``pad``) ``effect[fact, kind, token, layer]``, shorter prompts padded with NaN."""
        kinds = wire.words_of(self.spec, "kinds")
        return frames.to_xarray(await self.grids(metric=metric), kinds, align)

    async def to_npz(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Writes a NumPy file a fact and kind, and a metric where others than the probability were
        asked for, into a folder, in the form of the published code and under the names that the
        command line gives; facts that failed have none."""
        kinds = len(self.spec.kinds)
        facts = self.counts.units // max(kinds, 1)
        made: list[Path] = []
        for metric in self.metrics:
            made += npz.write(await self.grids(metric=metric), kinds, facts, folder)
        return made

    def _grids_of(self, results: list[Any]) -> list[Grid]:
        return [
            Grid.of(it.unit, it.grid, self.model)
            for it in results
            if it.WhichOneof("outcome") == "grid"
        ]

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        # What was read already: to show something is no reason to call anybody.
        bundle = {"text/plain": repr(self)}
        if self._results is not None:
            bundle["text/html"] = sweep_html(repr(self), self._grids_of(self._results))
        return bundle


class AveragesOfKinds(tuple[Averages, ...]):
    """Averages, one a kind and metric, or one a kind, metric and relation."""

    def of(
        self, kind: Kind, relation: str | None = None, metric: Metric | None = None
    ) -> Averages:
        """Those of a kind, in the first metric where none is named.

        Raises:
            LookupError: there are none.
        """
        for it in self:
            if (it.kind, it.relation) == (kind, relation) and metric in (None, it.metric):
                return it
        raise LookupError(f"there are no averages of {kind}, {relation}, {metric}")

    def plot(self) -> Html:
        """Curves over layers with their 95 % bands, a figure each; of heads a heat map."""
        return Html("".join(f"<div>{it._repr_svg_()}</div>" for it in self if it.layers))

    def _repr_html_(self) -> str:
        return str(self.plot())


class AsyncCompletionJob(AsyncJob):
    """Completions of prompts."""

    async def completions(self) -> list[Completion]:
        """The completions, in the order of prompts; those that failed are left out."""
        return [
            Completion(
                it.completion.prompt,
                it.completion.text,
                tuple(it.completion.token_ids),
                it.completion.ended,
            )
            for it in await self._all_results()
            if it.WhichOneof("outcome") == "completion"
        ]


class AsyncEditJob(AsyncJob):
    """Edits, one after the other."""

    async def edits(self) -> list[tuple[Edit, str]]:
        """The edits, each with the digest of the version that it made; empty for none."""
        return [
            (Edit.of(it.edit.edit), it.edit.version.rpartition("/")[2])
            for it in await self._all_results()
            if it.WhichOneof("outcome") == "edit"
        ]


class AsyncMassEditJob(AsyncEditJob):
    """Many facts in one edit a batch."""

    @property
    def plan(self) -> Plan:
        """What it does: its layers, groups and batches."""
        return Plan.of(self.spec)

    async def checks(self) -> list[Checked]:
        """What was to be expected of each batch, found before its targets: see ``check_many``."""
        return [
            Checked.of(it.mass_edit_checked)
            for it in await self._all_results()
            if it.WhichOneof("outcome") == "mass_edit_checked"
        ]

    async def facts(self) -> list[Measured]:
        """Its facts as they were measured, before and after."""
        return [
            Measured.of(it.unit, it.mass_edit_fact)
            for it in await self._all_results()
            if it.WhichOneof("outcome") == "mass_edit_fact"
        ]

    async def to_pandas(self) -> Any:
        """A DataFrame: a row a prompt of each fact, with its probabilities before and after."""
        return frames.of_measured(await self.facts())


class AsyncEvaluation(AsyncJob):
    """What a version answers to the records of a data set, and another one beside it."""

    async def records(self) -> list[Evaluated | Failure]:
        """Its records on the job's version, in order."""
        return (await self._halves())[0]

    async def against(self) -> list[Evaluated | Failure]:
        """The same on the version that it is compared with; empty where that is the same."""
        return (await self._halves())[1]

    async def measures(self) -> Measures:
        """The means over records on the job's version; with an edit each, behind its edit."""
        records = await self.records()
        return Measures.over(it.measured for it in records if isinstance(it, Evaluated))

    async def before(self) -> Measures:
        """The same without the edits: on the other version, or before each edit."""
        records = [it for it in await self.records() if isinstance(it, Evaluated)]
        if any(it.before is not None for it in records):
            return Measures.over(it.before for it in records if it.before is not None)
        others = await self.against() or records
        return Measures.over(it.measured for it in others if isinstance(it, Evaluated))

    async def _halves(self) -> tuple[list[Evaluated | Failure], list[Evaluated | Failure]]:
        found: list[Evaluated | Failure] = []
        for it in await self._all_results():
            outcome = it.WhichOneof("outcome")
            if outcome == "eval":
                found.append(Evaluated.of(it.unit, it.eval))
            elif outcome == "failure":
                found.append(failure_of(it.unit, it.failure))
        count = self.spec.record_count or len(self.spec.records)
        own = [it for it in found if it.unit < count]
        return own, [it for it in found if it.unit >= count]


class AsyncStatisticsJob(AsyncJob):
    """Key statistics of some layers."""


#: The handle of each kind of job.
HANDLES: dict[str, type[AsyncJob]] = {
    "trace": AsyncSweep,
    "generate": AsyncCompletionJob,
    "stats": AsyncStatisticsJob,
    "edit": AsyncEditJob,
    "eval": AsyncEvaluation,
    "mass_edit": AsyncMassEditJob,
}


def handle(transport: AsyncTransport, message: Any) -> Any:
    """The handle of a job."""
    return HANDLES.get(message.WhichOneof("spec") or "", AsyncJob)(transport, message)


__all__ = [
    "AsyncCompletionJob",
    "AsyncEditJob",
    "AsyncEvaluation",
    "AsyncMassEditJob",
    "AsyncStatisticsJob",
    "AsyncSweep",
    "AveragesOfKinds",
    "Mean",
    "handle",
]
