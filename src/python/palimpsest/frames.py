"""Grids as frames of other libraries, which are extras."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from .kinds import is_of_heads, is_over_tokens
from .roles import ROLES, role_tokens
from .results import Grid, Measured, Probe


def to_pandas(grids: Sequence[Grid], long: bool) -> Any:
    """A DataFrame: a row a grid with its peak, or a row a cell."""
    import pandas

    rows: list[dict[str, Any]] = []
    for grid in grids:
        row: dict[str, Any] = {
            "unit": grid.unit,
            "id": grid.id,
            "relation": grid.relation,
            "prompt": grid.prompt,
            "subject": grid.subject_text,
            "kind": grid.kind,
            "attribute": grid.attribute,
            "answer": grid.answer,
            "correct": grid.correct,
            "clean": grid.clean,
            "corrupted": grid.corrupted,
            "metric": grid.metric,
            "direction": grid.direction,
            "engine": grid.engine,
        }
        if not long:
            peak = grid.peak
            row["total_effect"] = grid.total_effect
            row["peak_token"] = peak.token if peak else None
            row["peak_role"] = peak.role if peak else None
            row["peak_layer"] = peak.layer if peak else None
            row["peak_head"] = peak.head if peak else None
            row["peak_effect"] = peak.effect if peak else np.nan
            rows.append(row)
            continue
        effect = grid.effect
        for cell in np.ndindex(grid.scores.shape):
            where: dict[str, Any] = {"token": None, "text": None}
            if not is_over_tokens(grid.kind):
                where = {"token": cell[0], "text": grid.tokens[cell[0]]}
            where["layer"] = cell[-1]
            where["head"] = cell[-2] if is_of_heads(grid.kind) else None
            score = {"score": grid.scores[cell], "effect": effect[cell]}
            rows.append({**row, **where, **score})
    frame = pandas.DataFrame(rows)
    whole = {"peak_layer", "peak_head", "head"}
    return frame.astype({name: "Int64" for name in frame.columns if name in whole})


def to_xarray(grids: Sequence[Grid], kinds: Sequence[str], align: Literal["role", "pad"]) -> Any:
    """A Dataset: ``effect[fact, kind, role, layer]``, or ``[fact, kind, token, layer]``."""
    import xarray

    for kind in filter(is_of_heads, kinds):
        raise ValueError(f"grids of {kind} have heads too: take each one's `effect`, an array")

    facts = sorted({grid.unit // max(len(kinds), 1) for grid in grids})
    layers = max((grid.layers for grid in grids), default=0)
    tokens = max((len(grid.tokens) for grid in grids), default=0)
    rows = len(ROLES) if align == "role" else tokens
    effect = np.full((len(facts), len(kinds), rows, layers), np.nan)
    of_fact: dict[int, Grid] = {}
    for grid in grids:
        at = facts.index(grid.unit // len(kinds))
        of_fact.setdefault(at, grid)
        if not grid.scores.size:
            continue
        place, values = effect[at, kinds.index(grid.kind)], grid.effect
        if align == "pad":
            place[: len(grid.tokens)] = values
            continue
        for n, role in enumerate(ROLES):
            these = list(role_tokens(role, grid.subject, len(grid.tokens)))
            if these:
                place[n] = values[these].mean(axis=0)
    first = [of_fact[at] for at in range(len(facts))]
    row_name = "role" if align == "role" else "token"
    return xarray.Dataset(
        {"effect": (("fact", "kind", row_name, "layer"), effect)},
        coords={
            "fact": facts,
            "kind": list(kinds),
            row_name: list(ROLES) if align == "role" else np.arange(tokens),
            "layer": np.arange(layers),
            "clean": ("fact", [it.clean for it in first]),
            "corrupted": ("fact", [it.corrupted for it in first]),
            "relation": ("fact", [it.relation or "" for it in first]),
            "answer": ("fact", [it.answer for it in first]),
            "correct": ("fact", [it.correct for it in first]),
            "prompt": ("fact", [it.prompt for it in first]),
        },
    )


def of_probes(probes: Sequence[Probe]) -> Any:
    """A DataFrame: a row a prompt, before and after an edit."""
    import pandas

    return pandas.DataFrame(probes, columns=pandas.Index(Probe._fields))


def of_measured(facts: Sequence[Measured]) -> Any:
    """A DataFrame: a row a prompt of each fact, before and after."""
    import pandas

    rows = [
        {
            "unit": it.unit,
            "id": it.rewrite.id,
            "subject": it.rewrite.subject,
            "target": it.rewrite.target,
            **probe._asdict(),
        }
        for it in facts
        for probe in it.probes
    ]
    return pandas.DataFrame(rows)
