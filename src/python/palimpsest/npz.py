"""Grids as NumPy files, in the form of the published causal tracing code: one a fact and kind."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .kinds import is_of_heads
from .results import Grid

#: Most characters of a subject in a file's name.
_LONGEST = 40


def write(
    grids: Sequence[Grid], kinds: int, facts: int, folder: str | os.PathLike[str]
) -> list[Path]:
    """Writes them, and gives the files. The folder is made where it is missing; files of the same
    names are overwritten, others stay."""
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    digits = max(len(str(facts)), 3)
    made: list[Path] = []
    for grid in grids:
        number = grid.unit // max(kinds, 1) + 1
        metric = "" if grid.metric == "probability" else f"_{grid.metric}"
        name = f"{number:0{digits}}_{_readable(grid.subject_text)}_{grid.kind}{metric}.npz"
        file = place / name
        np.savez(file, **arrays(grid))
        made.append(file)
    return made


def arrays(grid: Grid) -> dict[str, Any]:
    """The arrays of a grid's file, by name."""
    if grid.untraced:
        return {"correct_prediction": np.array(True), "untraced": np.array(grid.untraced)}
    if not grid.scores.size:
        return {"correct_prediction": np.array(False)}
    made = {
        "scores": grid.scores.astype(np.float32),
        "low_score": np.float64(grid.corrupted),
        "high_score": np.float64(grid.clean),
        "input_ids": np.array(grid.token_ids, dtype=np.int64),
        "input_tokens": np.array(grid.tokens, dtype=np.str_),
        "subject_range": np.array([grid.subject.start, grid.subject.stop], dtype=np.int64),
        "answer": np.array(grid.answer, dtype=np.str_),
        "window": np.int64(grid.window),
        "correct_prediction": np.array(True),
        "kind": np.array("" if grid.kind == "hidden" else grid.kind, dtype=np.str_),
    }
    # What the published form has no arrays for.
    if grid.metric != "probability":
        made["metric"] = np.array(grid.metric, dtype=np.str_)
    if grid.corrupted_prompt is not None:
        made["corrupted_prompt"] = np.array(grid.corrupted_prompt, dtype=np.str_)
        made["corrupted_ids"] = np.array(grid.corrupted_ids, dtype=np.int64)
        made["direction"] = np.array(grid.direction, dtype=np.str_)
    if grid.foil is not None:
        made["foil"] = np.array(grid.foil, dtype=np.str_)
    if grid.whole_answers:
        made["whole_answers"] = np.array(True)
    if grid.paths is not None:
        made["receivers"] = np.array(grid.paths.receivers, dtype=np.str_)
    if grid.estimate is not None:
        made["estimate"] = np.array(grid.estimate, dtype=np.str_)
        cells = [(it.at, it.layer) for it in grid.verified]
        made["verified_cells"] = np.array(cells, dtype=np.int64).reshape(-1, 2)
        if grid.neurons is not None:
            made["neurons"] = grid.neurons
            of_cells = [it.neuron for it in grid.verified]
            made["verified_neurons"] = np.array(of_cells, dtype=np.int64)
        if is_of_heads(grid.kind):
            heads = [it.head for it in grid.verified]
            made["verified_heads"] = np.array(heads, dtype=np.int64)
        made["verified_random"] = np.array([it.random for it in grid.verified], dtype=np.bool_)
        exact = [it.exact[0] for it in grid.verified]
        made["verified_scores"] = np.array(exact, dtype=np.float64)
    return made


def _readable(subject: str) -> str:
    """A subject as a part of a file's name: letters and digits in lower case."""
    words = "".join(c if c.isalnum() else " " for c in subject.lower()).split()
    return "-".join(words)[:_LONGEST].rstrip("-") or "fact"
