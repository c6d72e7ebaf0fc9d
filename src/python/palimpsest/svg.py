"""Figures as SVG, byte for byte those of the command line.

Coordinates are computed in single precision, in the same order of operations, as there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .drawing import (
    BODY,
    DASHES,
    INK,
    LABEL,
    LINES,
    MARGIN,
    NAMES,
    NOTE,
    RAMPS,
    ROLE_NAMES,
    SEVERED,
    SOFT,
    STATES,
    TITLE,
    Svg,
    Writer,
    anchors,
    columns,
    cut,
    cut_ems,
    ems,
    f32,
    gap_note,
    label_of,
    layer_ticks,
    num,
    number,
    shade,
    shortest,
    ticks,
    visible,
    widest,
)
from .kinds import is_of_heads, is_over_tokens
from .paths import Paths
from .roles import Role

__all__ = ["Svg", "curves_of_averages", "map_of_averages", "map_of_grid", "number"]


def _heat_map(
    *,
    title: str,
    x_label: str,
    value_label: str,
    rows: Sequence[str],
    starred: range,
    scores: Any,
    colours: str,
    low: float,
    high: float | None,
    ceiling: float | None = None,
    signed: bool = False,
) -> Svg:
    values = np.asarray(scores, dtype=np.float32)
    count, layers = values.shape
    floor = f32(low)
    finite = values[np.isfinite(values)]
    top_of_scale = f32(ceiling) if ceiling is not None else max([floor, *finite.flat])
    top_of_scale = max(top_of_scale, floor)
    baseline = floor
    # Of effects that point the other way as far as of others, where some visibly do.
    above, below = top_of_scale - floor, floor - min([floor, *finite.flat])
    most = max(above, below)
    two_sided = signed and bool(below > most / f32(32))
    if two_sided:
        floor, top_of_scale = floor - most, floor + most
    colour = anchors(colours, two_sided)
    flat = bool(top_of_scale <= floor)

    def position(score: np.float32) -> np.float32 | None:
        if not np.isfinite(score):
            return None
        if flat:
            return f32(0)
        at = (float(score) - float(floor)) / (float(top_of_scale) - float(floor))
        return f32(min(max(at, 0.0), 1.0))

    def full_label(row: int) -> str:
        return label_of(rows[row]) + ("*" if row in starred else "")

    def axis_label(row: int) -> str:
        text = full_label(row)
        if row in starred:
            return cut_ems(text[:-1], LABEL - 0.5) + "*"
        return cut_ems(text, LABEL)

    notes = []
    if high is not None:
        name = cut(visible(value_label), 32, lambda s: sum(columns(c) for c in s))
        clean, corrupted = number(float(f32(high))), number(float(baseline))
        notes.append(f"{name}: clean {clean}, corrupted {corrupted}")
    gaps = gap_note(values.flat)
    if gaps:
        notes.append(f"{gaps} (hatched)")
    title, x_label = cut_ems(visible(title), 75.0), cut_ems(visible(x_label), 75.0)
    value_label = cut_ems(visible(value_label), LABEL)
    labels = [axis_label(row) for row in range(count)]

    width_of_440 = math.floor(float(f32(440.0) / f32(layers)) + 0.5)
    cell_width = f32(max(min(max(width_of_440, 6), 20), math.ceil(f32(220.0) / f32(layers))))
    cell_height = f32(max(math.ceil(f32(96.0) / f32(count)), 16))
    grid_width, grid_height = cell_width * f32(layers), cell_height * f32(count)
    bar_width, bar_height = f32(13), min(grid_height, f32(320))
    bar_ticks = _bar_labels(float(floor), float(top_of_scale), bar_height)

    label_width = widest(labels) * f32(BODY)
    bar_text = widest(it[1] for it in bar_ticks) * f32(BODY)
    centred = max(ems(title) * f32(TITLE), ems(x_label) * f32(BODY), widest(notes) * f32(NOTE))
    overhang = max((centred - grid_width) / f32(2), f32(0))
    left = np.ceil(f32(MARGIN) + max(label_width + f32(8), overhang))
    bar_left = left + grid_width + f32(16)
    right = max(
        bar_left + bar_width + f32(8) + bar_text,
        bar_left + ems(value_label) * f32(BODY),
        left + grid_width + overhang,
    )
    top = f32(MARGIN + TITLE + 10)
    axis_bottom = top + grid_height
    x_label_at = axis_bottom + f32(34)
    bottom = x_label_at + f32(len(notes)) * f32(15)
    svg = Writer(np.ceil(right + f32(MARGIN)), np.ceil(bottom + f32(MARGIN)), title)

    svg.open("defs")
    svg.open("pattern", id="hatch", width="4", height="4", patternUnits="userSpaceOnUse")
    svg.empty("rect", width="4", height="4", fill="#ffffff")
    svg.empty("path", d="M0 4L4 0M-1 1L1 -1M3 5L5 3", stroke="#777777", stroke_width="0.9")
    svg.close()
    svg.close()
    middle = left + grid_width / f32(2)
    svg.caption(middle, f32(MARGIN + TITLE), TITLE, INK, title)
    svg.caption(middle, x_label_at, BODY, INK, x_label)
    for i, note in enumerate(notes):
        svg.caption(middle, x_label_at + f32(16) + f32(15) * f32(i), NOTE, SOFT, note)

    svg.open("g", **{"class": "cells", "shape_rendering": "crispEdges"})
    for row in range(count):
        y = top + f32(row) * cell_height
        token = cut_ems(full_label(row), 8.0 * LABEL)
        svg.open("g", transform=f"translate({shortest(left)} {shortest(y)})")
        for layer in range(layers):
            score = values[row, layer]
            at = position(score)
            svg.tooltip(
                "rect",
                f"{token}, layer {layer}: {number(float(score))}",
                x=num(f32(layer) * cell_width),
                width=num(cell_width),
                height=num(cell_height),
                fill="url(#hatch)" if at is None else shade(colour, at),
            )
        svg.close()
    svg.close()

    svg.frame(left, top, grid_width, grid_height)
    svg.open("g", **{"class": "tokens", "text_anchor": "end", "fill": INK})
    for row, text in enumerate(labels):
        y = top + (f32(row) + f32(0.5)) * cell_height
        svg.tick(left - f32(3), y, left, y)
        svg.text("text", text, x=num(left - f32(6)), y=num(y + f32(0.34) * f32(BODY)))
    svg.close()
    svg.open("g", **{"class": "layers", "text_anchor": "middle", "fill": INK})
    for layer in layer_ticks(layers, math.ceil(f32(36) / cell_width)):
        x = left + (f32(layer) + f32(0.5)) * cell_width
        svg.tick(x, axis_bottom, x, axis_bottom + f32(3))
        svg.text("text", str(layer), x=num(x), y=num(axis_bottom + f32(15)))
    svg.close()

    svg.open("defs")
    svg.open("linearGradient", id="scale", x1="0", y1="1", x2="0", y2="0")
    for i, stop in enumerate(colour[:1] if flat else colour):
        svg.empty("stop", offset=num(f32(i) / f32(len(colour) - 1)), stop_color=f"#{stop}")
    svg.close()
    svg.close()
    svg.open("g", **{"class": "scale", "fill": INK})
    svg.empty(
        "rect",
        x=num(bar_left),
        y=num(top),
        width=num(bar_width),
        height=num(bar_height),
        fill="url(#scale)",
    )
    svg.frame(bar_left, top, bar_width, bar_height)
    for at_bar, text in bar_ticks:
        y = top + (f32(1) - at_bar) * bar_height
        x = bar_left + bar_width
        svg.tick(x, y, x + f32(3), y)
        svg.text("text", text, x=num(x + f32(6)), y=num(y + f32(0.34) * f32(BODY)))
    svg.text("text", value_label, x=num(bar_left), y=num(top + bar_height + f32(15)))
    svg.close()
    return svg.finish()


def _bar_labels(low: float, high: float, height: Any) -> list[tuple[np.float32, str]]:
    if high <= low:
        return [(f32(0.5), number(low))]
    count = int(min(max(f32(height) / f32(20), f32(4)), f32(8)))
    return [
        (f32(min(max((value - low) / (high - low), 0.0), 1.0)), text)
        for value, text in ticks(low, high, count)
    ]


def map_of_grid(
    *,
    kind: str,
    model: str,
    window: int,
    tokens: Sequence[str],
    subject: slice,
    answer: str,
    scores: Any,
    corrupted: float,
    clean: float,
    ceiling: float | None = None,
    metric: str = "probability",
    direction: str = "denoising",
    effect: Any = None,
    total_effect: float = 0.0,
    page: int = 0,
    paths: Paths | None = None,
    estimate: str | None = None,
    whole_answers: bool = False,
) -> Svg:
    """The heat map of a grid, ``scores[token, layer]`` (figure 1 of the paper); of another metric,
    or in the other direction, that of its ``effect``. ``page``: of heads at single tokens the
    token."""
    drawn = kind if kind in RAMPS else "hidden"
    title = f"Impact of restoring {NAMES[drawn]} after corrupted input"
    if kind in SEVERED:
        title = f"Impact of restoring state with {SEVERED[kind]} severed"
    elif kind in STATES:
        title = f"Impact of restoring {STATES[kind]} after corrupted input"
    title += "" if paths is None else f", {paths}"
    value_label = f"p({answer.strip()})"
    top: float | None = clean
    if (metric, direction) != ("probability", "denoising"):
        # Other metrics have no common scale: what is drawn is the effect, from none on.
        scores, corrupted, top = effect, 0.0, None
        value_label = f"{METRIC_NAMES[metric]} {'lost' if direction == 'noising' else 'back'}"
        if direction == "noising":
            title = title.replace("restoring", "corrupting")
            title = title.replace("after corrupted", "after clean")
        total = number(0.0 if math.isnan(total_effect) else total_effect)
        title += f", {METRIC_NAMES[metric]}: total effect {total}"
    title += _behind(whole_answers, estimate)
    rows, starred = tokens, range(subject.start, subject.stop)
    if is_of_heads(kind):
        if not is_over_tokens(kind):
            title += f", at {label_of(tokens[page])}{'*' if page in starred else ''}"
            scores = scores[page]
        rows, starred = _heads(len(scores)), range(0)
    return _heat_map(
        title=title,
        x_label=f"single restored layer within {model}"
        if drawn == "hidden"
        else f"center of interval of {window} restored {NAMES[drawn]} layers",
        value_label=value_label,
        rows=rows,
        starred=starred,
        scores=scores,
        colours=_colours(kind),
        low=corrupted,
        high=top,
        ceiling=ceiling,
        signed=_is_signed(metric, direction, estimate),
    )


def _behind(whole_answers: bool, estimate: str | None) -> str:
    """What stands behind a title: that answers were read whole, and that it is of estimates."""
    whole = ", whole answers" if whole_answers else ""
    return whole + ("" if estimate is None else f", {estimate}")


def _is_signed(metric: str, direction: str, estimate: str | None) -> bool:
    """Whether effects that point the other way have colours of their own. In the published figures,
    of the probability that restoring brings back, they are drawn as none."""
    return (metric, direction) != ("probability", "denoising") or estimate is not None


def _heads(count: int) -> list[str]:
    """What the rows of heads are called."""
    return [f"head {head}" for head in range(count)]


def _colours(kind: str) -> str:
    """The colours of a kind: heads are parts of attention."""
    if is_of_heads(kind):
        return "attn"
    return kind if kind in RAMPS else "hidden"


#: Metrics as figures name them.
METRIC_NAMES = {
    "probability": "probability",
    "log_probability": "log-probability",
    "logit_difference": "logit difference",
    "kl": "KL",
    "rank": "rank",
}


def _titles_of(
    kind: str,
    metric: str,
    direction: str,
    paths: Paths | None = None,
    estimate: str | None = None,
    whole_answers: bool = False,
) -> tuple[str, str, str]:
    drawn = kind if kind in RAMPS else "hidden"
    if kind in SEVERED:
        title = f"Average indirect effect of a single state with {SEVERED[kind]} severed"
    elif kind in STATES:
        title = f"Average indirect effect of {STATES[kind]}"
    elif drawn == "hidden":
        title = "Average indirect effect of a single state"
    else:
        title = f"Average indirect effect of the {NAMES[drawn]} window"
    below = "restored layer"
    if drawn != "hidden":
        below = f"center of the restored {NAMES[drawn]} layers"
    if paths is not None:
        title += f", {paths}"
    if metric != "probability":
        title += f", {METRIC_NAMES[metric]}"
    if direction == "noising":
        title += ", noising"
    title += _behind(whole_answers, estimate)
    return drawn, title, below


def map_of_averages(
    kind: str,
    roles: Sequence[Role | None],
    effect: Any,
    metric: str = "probability",
    direction: str = "denoising",
    paths: Paths | None = None,
    estimate: str | None = None,
    whole_answers: bool = False,
) -> Svg:
    """Average indirect effects, ``effect[role, layer]``, as a heat map (figure 2). A role that is
    None is left out. Of heads, ``effect[role, head, layer]``, that of the one role that is not."""
    _, title, below = _titles_of(kind, metric, direction, paths, estimate, whole_answers)
    there = [at for at, role in enumerate(roles) if role is not None]
    rows, shown = [ROLE_NAMES[role] for role in roles if role is not None], effect[there]
    if is_of_heads(kind):
        if not is_over_tokens(kind):
            title += f", {rows[0]}"
        shown = shown[0]
        rows = _heads(len(shown))
    return _heat_map(
        title=title,
        x_label=below,
        value_label="AIE",
        rows=rows,
        starred=range(0),
        scores=shown,
        colours=_colours(kind),
        low=0.0,
        high=None,
        signed=_is_signed(metric, direction, estimate),
    )


def curves_of_averages(
    kind: str,
    roles: Sequence[Role | None],
    effect: Any,
    half_width: Any,
    metric: str = "probability",
    direction: str = "denoising",
    estimate: str | None = None,
    whole_answers: bool = False,
) -> Svg:
    """Average indirect effects by layer with their 95 % bands, a curve a role."""
    _, title, below = _titles_of(
        kind, metric, direction, estimate=estimate, whole_answers=whole_answers
    )
    series = [
        (ROLE_NAMES[role], effect[at].astype(np.float32), half_width[at].astype(np.float32))
        for at, role in enumerate(roles)
        if role is not None
    ]
    return _curves(title, below, "AIE", series)


def _curves(title: str, x_label: str, y_label: str, series: list[tuple[str, Any, Any]]) -> Svg:
    if not series or not len(series[0][1]):
        raise ValueError("no fact was traced: there is nothing to draw")
    wide, high_of = f32(460), f32(240)
    layers = len(series[0][1])
    low = high = 0.0
    for _, mean, half in series:
        for layer in range(layers):
            a, b = _interval(mean, half, layer)
            low, high = min(low, a), max(high, b)
    if low == high:
        high += 1.0
    else:
        air = 0.05 * (high - low)
        low, high = (low - air if low < 0 else low), (high + air if high > 0 else high)
    y_ticks = ticks(low, high, 6)
    title, x_label = cut_ems(visible(title), 75.0), cut_ems(visible(x_label), 75.0)
    y_label = cut_ems(visible(y_label), 25.0)
    names = [cut_ems(visible(it[0]), 28.0) for it in series]

    tick_width = widest(it[1] for it in y_ticks) * f32(BODY)
    legend = widest(names) * f32(BODY) + f32(34)
    centred = max(ems(title) * f32(TITLE), ems(x_label) * f32(BODY))
    overhang = max((centred - wide) / f32(2), f32(0))
    left = np.ceil(f32(MARGIN) + max(f32(BODY + 6) + tick_width + f32(8), overhang))
    top = f32(MARGIN + TITLE + 10)
    bottom = top + high_of
    right = left + wide + max(f32(14) + legend, overhang)
    x_label_at = bottom + f32(34)
    legend_bottom = top + f32(6) + f32(18) * f32(len(names))
    height = max(x_label_at, legend_bottom) + f32(MARGIN)
    svg = Writer(np.ceil(right + f32(MARGIN)), np.ceil(height), title)

    inset = f32(10)
    step = (wide - f32(2) * inset) / f32(layers - 1) if layers > 1 else f32(0)
    shift = f32(0) if layers > 1 else wide / f32(2) - inset

    def x_of(layer: int) -> np.float32:
        return f32(left + inset + shift + f32(layer) * step)

    def y_of(value: float) -> np.float32:
        return f32(top + high_of * (f32(1) - f32((value - low) / (high - low))))

    def point(layer: int, value: float) -> str:
        return f"{num(x_of(layer))} {num(y_of(value))}"

    middle = left + wide / f32(2)
    svg.caption(middle, f32(MARGIN + TITLE), TITLE, INK, title)
    svg.caption(middle, x_label_at, BODY, INK, x_label)
    at = f"translate({num(f32(MARGIN + BODY))} {num(top + high_of / f32(2))}) rotate(-90)"
    svg.text("text", y_label, transform=at, text_anchor="middle", fill=INK)
    svg.open("g", **{"class": "grid", "stroke_width": "0.8"})
    for value, _ in y_ticks:
        y = y_of(value)
        svg.empty(
            "line",
            x1=num(left),
            y1=num(y),
            x2=num(left + wide),
            y2=num(y),
            stroke="#9a9a9a" if value == 0.0 else "#e6e6e6",
        )
    svg.close()
    svg.open("g", **{"class": "bands", "fill_opacity": "0.16"})
    for n, (_, mean, half) in enumerate(series):
        if np.isnan(half).any():
            continue
        ends = [_interval(mean, half, layer) for layer in range(layers)]
        if layers == 1:
            svg.empty(
                "path",
                d=f"M{point(0, ends[0][0])}L{point(0, ends[0][1])}",
                stroke=f"#{LINES[n % 7]}",
                stroke_opacity="0.4",
            )
            continue
        outline = [point(layer, ends[layer][1]) for layer in range(layers)]
        outline += [point(layer, ends[layer][0]) for layer in reversed(range(layers))]
        svg.empty("path", d=f"M{'L'.join(outline)}Z", fill=f"#{LINES[n % 7]}")
    svg.close()
    svg.open(
        "g",
        **{
            "class": "curves",
            "fill": "none",
            "stroke_width": "1.7",
            "stroke_linejoin": "round",
        },
    )
    for n, (name, mean, _) in reversed(list(enumerate(series))):
        if layers == 1:
            svg.tooltip(
                "circle",
                visible(name),
                cx=num(x_of(0)),
                cy=num(y_of(float(mean[0]))),
                r="2.4",
                fill=f"#{LINES[n % 7]}",
            )
            continue
        line = "L".join(point(layer, float(mean[layer])) for layer in range(layers))
        svg.tooltip(
            "path",
            visible(name),
            d=f"M{line}",
            stroke=f"#{LINES[n % 7]}",
            stroke_dasharray=DASHES[n % 4],
        )
    svg.close()
    svg.frame(left, top, wide, high_of)
    svg.open("g", **{"class": "values", "text_anchor": "end", "fill": INK})
    for value, text in y_ticks:
        y = y_of(value)
        svg.tick(left - f32(3), y, left, y)
        svg.text("text", text, x=num(left - f32(6)), y=num(y + f32(0.34) * f32(BODY)))
    svg.close()
    svg.open("g", **{"class": "layers", "text_anchor": "middle", "fill": INK})
    spacing = math.ceil(f32(36) / step) if layers > 1 else 1
    for layer in layer_ticks(layers, spacing):
        x = x_of(layer)
        svg.tick(x, bottom, x, bottom + f32(3))
        svg.text("text", str(layer), x=num(x), y=num(bottom + f32(15)))
    svg.close()
    svg.open("g", **{"class": "legend", "fill": INK})
    for n, name in enumerate(names):
        x, y = left + wide + f32(14), top + f32(9) + f32(18) * f32(n)
        svg.empty(
            "line",
            x1=num(x),
            y1=num(y),
            x2=num(x + f32(26)),
            y2=num(y),
            stroke=f"#{LINES[n % 7]}",
            stroke_width="1.7",
            stroke_dasharray=DASHES[n % 4],
        )
        svg.text("text", name, x=num(x + f32(32)), y=num(y + f32(0.34) * f32(BODY)))
    svg.close()
    return svg.finish()


def _interval(mean: Any, half: Any, layer: int) -> tuple[float, float]:
    around = float(half[layer])
    around = abs(around) if math.isfinite(around) else 0.0
    return float(mean[layer]) - around, float(mean[layer]) + around
