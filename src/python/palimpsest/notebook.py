"""What notebooks show: tables and pictures, without a script."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from .averages import Averages
from .results import Grid, Probe, Step
from .svg import number
from .values import Edit

#: Grids up to which each has its map: a map is 34 kB.
_MAPS = 8


class Html(str):
    """HTML that a notebook shows."""

    def _repr_html_(self) -> str:
        return str(self)


def sweep_html(said: str, grids: Sequence[Grid]) -> str:
    """The maps of a few facts, or the averages of many."""
    traced = [grid for grid in grids if grid.scores.size]
    if len(traced) <= _MAPS:
        pictures = [str(grid.svg()) for grid in traced]
    else:
        kinds = dict.fromkeys(grid.kind for grid in traced)
        averages = [Averages.over(g for g in grids if g.kind == kind) for kind in kinds]
        pictures = [str(it.map()) for it in averages if it is not None]
    return f"<div>{escape(said)}</div>" + "".join(f"<div>{it}</div>" for it in pictures)


def draft_html(edit: Edit, probes: Sequence[Probe], steps: Sequence[Step]) -> str:
    """An edit before it is committed: its gates, its loss, and each prompt before and after."""
    state = "accepted" if edit.state == "accepted" else "rejected: " + "; ".join(edit.failed_gates)
    head = f"<div><b>{escape(str(edit))}</b><br>{escape(edit.layer_choice)}; {escape(state)}</div>"
    names = ("", "prompt", "p(new) before", "after", "p(true) before", "after")
    rows = []
    for it in probes:
        numbers = (it.new_before, it.new_after, it.true_before, it.true_after)
        said = ["" if value is None else number(value) for value in numbers]
        rows.append((it.kind, it.prompt, *said))
    table = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    header = "".join(f"<th>{name}</th>" for name in names)
    return (
        f"{head}{_loss(steps)}<table><thead><tr>{header}</tr></thead><tbody>{table}</tbody></table>"
    )


def _loss(steps: Sequence[Step]) -> str:
    """The loss by step, as a small curve."""
    if len(steps) < 2:
        return ""
    most = max(step.loss for step in steps) or 1.0
    points = " ".join(
        f"{n * 200 / (len(steps) - 1):.1f},{38 - 36 * max(step.loss, 0.0) / most:.1f}"
        for n, step in enumerate(steps)
    )
    title = f"loss {steps[0].loss:.2f} to {steps[-1].loss:.2f} in {len(steps)} steps"
    return (
        f'<div><svg xmlns="http://www.w3.org/2000/svg" width="200" height="40" role="img">'
        f'<title>{title}</title><polyline points="{points}" fill="none" stroke="currentColor"/>'
        f"</svg> {title}</div>"
    )
