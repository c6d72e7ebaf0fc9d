"""Figures as SVG, byte for byte those of the command line.

Coordinates are computed in single precision, in the same order of operations, as there.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .averages import Averages
    from .results import Grid

_FONTS = "'Times New Roman', 'Liberation Serif', 'Nimbus Roman', Times, serif"
_BODY, _TITLE, _NOTE, _MARGIN, _LABEL = 12.0, 14.0, 10.0, 10.0, 16.0
_INK, _SOFT = "#1a1a1a", "#666666"
_f = np.float32

#: ColorBrewer's sequential nine-class schemes, which the paper's figures use.
_RAMPS = {
    "hidden": "fcfbfd efedf5 dadaeb bcbddc 9e9ac8 807dba 6a51a3 54278f 3f007d",
    "mlp": "f7fcf5 e5f5e0 c7e9c0 a1d99b 74c476 41ab5d 238b45 006d2c 00441b",
    "attn": "fff5f0 fee0d2 fcbba1 fc9272 fb6a4a ef3b2c cb181d a50f15 67000d",
}
#: Okabe and Ito (2008), without yellow.
_LINES = "0072b2 d55e00 009e73 cc79a7 e69f00 56b4e9 000000".split()
_DASHES = ("none", "7 3", "4 2", "8 3 2 3")
_NAMES = {"hidden": "state", "mlp": "MLP", "attn": "Attn"}
_SEVERED = {"hidden_severed_mlp": "MLP", "hidden_severed_attn": "attention"}
_ROLE_NAMES = {
    "first subject": "first subject token",
    "middle subject": "middle subject tokens",
    "last subject": "last subject token",
    "first subsequent": "first subsequent token",
    "further": "further tokens",
    "last": "last token",
}
#: Advance widths of ASCII 0x20 to 0x7e in Times, thousandths of an em.
_TIMES = (
    "250 333 408 500 500 833 778 180 333 333 500 564 250 333 250 278 500 500 500 500 500 500 500 "
    "500 500 500 278 278 564 564 564 444 921 722 667 667 722 611 556 722 722 333 389 722 611 889 "
    "722 722 556 722 667 556 611 722 722 944 722 722 611 333 278 333 469 500 333 444 500 444 500 "
    "444 333 500 500 278 278 500 278 778 500 500 500 500 333 389 278 500 500 722 500 500 444 480 "
    "200 480 541"
)
_WIDTHS = [_f(int(it)) / _f(1000) for it in _TIMES.split()]


class Svg(str):
    """A picture as text; a notebook shows it."""

    def _repr_svg_(self) -> str:
        return str(self)

    def save(self, path: str) -> None:
        """Writes it to a file."""
        with open(path, "w", encoding="utf-8") as file:
            file.write(self)


def number(value: float) -> str:
    """A value in a sentence: three significant places."""
    size = abs(value)
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    if value == 0.0:
        return "0"
    if not 1e-3 <= size < 1e6:
        return _exponent(value, 2)
    return f"{value:.4f}" if size < 0.1 else f"{value:.3f}" if size < 100.0 else f"{value:.0f}"


def _exponent(value: float, places: int) -> str:
    mantissa, _, exponent = f"{value:.{places}e}".partition("e")
    if "." in mantissa:
        mantissa = mantissa.rstrip("0").rstrip(".")
    return f"{mantissa}e{int(exponent)}"


def _num(value: Any) -> str:
    """A coordinate to a hundredth of a pixel."""
    wide = float(value) * 100.0
    rounded = math.copysign(math.floor(abs(wide) + 0.5), wide) / 100.0 + 0.0
    text = np.format_float_positional(rounded, unique=True, trim="-")
    return "0" if text == "-0" else text


def _text(value: Any) -> str:
    """A single as it is displayed: the shortest that says it."""
    return np.format_float_positional(_f(value), unique=True, trim="-")


def _escape(text: str) -> str:
    pairs = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;"}
    out = []
    for c in text:
        legal = c in "\t\n\r" or " " <= c <= "\ufffd" or c >= "\U00010000"
        out.append(pairs.get(c, c) if legal else "\ufffd")
    return "".join(out)


def _is_hidden(c: str) -> bool:
    n = ord(c)
    return (
        n in (0xAD, 0x61C, 0x180E, 0x200B, 0x200C, 0x200E, 0x200F, 0xFEFF, 0xFFFE, 0xFFFF)
        or 0x2028 <= n <= 0x202E
        or 0x2060 <= n <= 0x206F
        or 0xFFF9 <= n <= 0xFFFB
        or 0xE0000 <= n <= 0xE007F
    )


def visible(text: str) -> str:
    """A text of unknown origin as one visible line."""
    out = []
    for c in text:
        if c == "\n":
            out.append("⏎")
        elif c == "\t":
            out.append("⇥")
        elif unicodedata.category(c) == "Cc" or _is_hidden(c):
            out.append(f"‹U+{ord(c):04X}›")
        else:
            out.append(c)
    return "".join(out)


def _label(token: str) -> str:
    trimmed = token.strip(" ")
    return visible(trimmed) if trimmed else "␣" * len(token)


def _columns(c: str) -> int:
    if unicodedata.combining(c) or unicodedata.category(c) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(c) in "WF" else 1


def _ems(text: str) -> np.float32:
    """Width in ems of the typeface: exact for ASCII, an upper estimate beyond it."""
    total = _f(0)
    for c in text:
        if " " <= c <= "~":
            total = total + _WIDTHS[ord(c) - 0x20]
        else:
            total = total + _f((0.0, 0.75, 1.25)[_columns(c)])
    return total


def _cut(text: str, limit: float, measure: Any) -> str:
    if measure(text) <= limit:
        return text
    end = 0
    for at in range(1, len(text) + 1):
        if measure(text[:at]) > limit - 1.0:
            break
        end = at
    kept = text[:end].rstrip("\u200d ")
    return f"{kept}…"


def _cut_ems(text: str, limit: float) -> str:
    return _cut(text, limit, _ems)


def _ticks(low: float, high: float, count: int) -> list[tuple[float, str]]:
    span = high - low
    if not span > 0.0 or not math.isfinite(span):
        return [(low, number(low))]
    rough = span / max(count, 1)
    exponent = math.floor(math.log10(rough))
    mantissa = rough / 10.0**exponent
    if mantissa < math.sqrt(2):
        unit = 1
    elif mantissa < math.sqrt(10):
        unit = 2
    elif mantissa < math.sqrt(50):
        unit = 5
    else:
        unit, exponent = 1, exponent + 1
    step = unit * 10.0**exponent
    first, last = math.ceil(low / step - 5e-4), math.floor(high / step + 5e-4)
    made = []
    for k in range(first, last + 1):
        value = k * step
        if exponent < -4:
            text = "0" if k == 0 else _exponent(value, 3)
        else:
            text = f"{value:.{max(-exponent, 0)}f}"
        made.append((value, text))
    return made


def _layer_ticks(layers: int, spacing: int) -> range:
    step, turn = 1, 0
    while step < max(spacing, 1):
        step = (2, 5, 10)[turn % 3] * 10 ** (turn // 3)
        turn += 1
    return range(0, layers, step)


def _shade(kind: str, position: Any) -> str:
    ramp = _RAMPS[kind].split()
    at = min(max(_f(position), _f(0)), _f(1)) * _f(8)
    low = min(int(at), 7)
    part = at - _f(low)
    out = "#"
    for i in (0, 2, 4):
        a, b = (_f(int(ramp[n][i : i + 2], 16)) for n in (low, low + 1))
        mixed = a + (b - a) * part
        out += f"{math.floor(float(mixed) + 0.5):02x}"
    return out


class _Writer:
    """Well-formed SVG; elements close in the order in which they were opened."""

    def __init__(self, width: Any, height: Any, title: str) -> None:
        self.out: list[str] = []
        self.opened: list[str] = []
        self.open(
            "svg",
            xmlns="http://www.w3.org/2000/svg",
            width=_num(width),
            height=_num(height),
            viewBox=f"0 0 {_num(width)} {_num(height)}",
            role="img",
            font_family=_FONTS,
            font_size="12",
        )
        self.text("title", title)
        self.empty("rect", width="100%", height="100%", fill="#ffffff")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        said = "".join(
            f' {key if key in ("viewBox", "patternUnits") else key.replace("_", "-")}'
            f'="{_escape(value)}"'
            for key, value in attributes.items()
        )
        self.out.append(f"<{name}{said}")

    def empty(self, name: str, **attributes: str) -> None:
        self._start(name, attributes)
        self.out.append("/>\n")

    def open(self, name: str, **attributes: str) -> None:
        self._start(name, attributes)
        self.out.append(">\n")
        self.opened.append(name)

    def text(self, name: str, text: str, **attributes: str) -> None:
        self._start(name, attributes)
        self.out.append(f">{_escape(text)}</{name}>\n")

    def tooltip(self, name: str, text: str, **attributes: str) -> None:
        self._start(name, attributes)
        self.out.append(f"><title>{_escape(text)}</title></{name}>\n")

    def close(self) -> None:
        self.out.append(f"</{self.opened.pop()}>\n")

    def finish(self) -> Svg:
        while self.opened:
            self.close()
        return Svg("".join(self.out))

    def caption(self, x: Any, y: Any, size: Any, fill: str, text: str) -> None:
        self.text(
            "text",
            text,
            x=_num(x),
            y=_num(y),
            text_anchor="middle",
            font_size=_num(size),
            fill=fill,
        )

    def frame(self, x: Any, y: Any, width: Any, height: Any) -> None:
        self.empty(
            "rect",
            x=_num(x),
            y=_num(y),
            width=_num(width),
            height=_num(height),
            fill="none",
            stroke=_INK,
            stroke_width="0.8",
        )

    def tick(self, x1: Any, y1: Any, x2: Any, y2: Any) -> None:
        self.empty(
            "line",
            x1=_num(x1),
            y1=_num(y1),
            x2=_num(x2),
            y2=_num(y2),
            stroke=_INK,
            stroke_width="0.8",
        )


def _gaps(values: Iterable[Any]) -> str | None:
    gaps = sum(1 for value in values if not math.isfinite(value))
    if gaps == 0:
        return None
    return "1 value is not a number" if gaps == 1 else f"{gaps} values are not numbers"


def _widest(texts: Iterable[str]) -> np.float32:
    widest = _f(0)
    for text in texts:
        widest = max(widest, _ems(text))
    return widest


def _heat_map(
    *,
    title: str,
    x_label: str,
    value_label: str,
    rows: Sequence[str],
    starred: range,
    scores: Any,
    kind: str,
    low: float,
    high: float | None,
    ceiling: float | None = None,
) -> Svg:
    values = np.asarray(scores, dtype=np.float32)
    count, layers = values.shape
    floor = _f(low)
    finite = values[np.isfinite(values)]
    top_of_scale = _f(ceiling) if ceiling is not None else max([floor, *finite.flat])
    top_of_scale = max(top_of_scale, floor)
    flat = bool(top_of_scale <= floor)

    def position(score: np.float32) -> np.float32 | None:
        if not np.isfinite(score):
            return None
        if flat:
            return _f(0)
        at = (float(score) - float(floor)) / (float(top_of_scale) - float(floor))
        return _f(min(max(at, 0.0), 1.0))

    def full_label(row: int) -> str:
        return _label(rows[row]) + ("*" if row in starred else "")

    def axis_label(row: int) -> str:
        text = full_label(row)
        if row in starred:
            return _cut_ems(text[:-1], _LABEL - 0.5) + "*"
        return _cut_ems(text, _LABEL)

    notes = []
    if high is not None:
        name = _cut(visible(value_label), 32, lambda s: sum(_columns(c) for c in s))
        clean, corrupted = number(float(_f(high))), number(float(floor))
        notes.append(f"{name}: clean {clean}, corrupted {corrupted}")
    gaps = _gaps(values.flat)
    if gaps:
        notes.append(f"{gaps} (hatched)")
    title, x_label = _cut_ems(visible(title), 60.0), _cut_ems(visible(x_label), 60.0)
    value_label = _cut_ems(visible(value_label), _LABEL)
    labels = [axis_label(row) for row in range(count)]

    width_of_440 = math.floor(float(_f(440.0) / _f(layers)) + 0.5)
    cell_width = _f(max(min(max(width_of_440, 6), 20), math.ceil(_f(220.0) / _f(layers))))
    cell_height = _f(max(math.ceil(_f(96.0) / _f(count)), 16))
    grid_width, grid_height = cell_width * _f(layers), cell_height * _f(count)
    bar_width, bar_height = _f(13), min(grid_height, _f(320))
    bar_ticks = _bar_labels(float(floor), float(top_of_scale), bar_height)

    label_width = _widest(labels) * _f(_BODY)
    bar_text = _widest(it[1] for it in bar_ticks) * _f(_BODY)
    centred = max(_ems(title) * _f(_TITLE), _ems(x_label) * _f(_BODY), _widest(notes) * _f(_NOTE))
    overhang = max((centred - grid_width) / _f(2), _f(0))
    left = np.ceil(_f(_MARGIN) + max(label_width + _f(8), overhang))
    bar_left = left + grid_width + _f(16)
    right = max(
        bar_left + bar_width + _f(8) + bar_text,
        bar_left + _ems(value_label) * _f(_BODY),
        left + grid_width + overhang,
    )
    top = _f(_MARGIN + _TITLE + 10)
    axis_bottom = top + grid_height
    x_label_at = axis_bottom + _f(34)
    bottom = x_label_at + _f(len(notes)) * _f(15)
    svg = _Writer(np.ceil(right + _f(_MARGIN)), np.ceil(bottom + _f(_MARGIN)), title)

    svg.open("defs")
    svg.open("pattern", id="hatch", width="4", height="4", patternUnits="userSpaceOnUse")
    svg.empty("rect", width="4", height="4", fill="#ffffff")
    svg.empty("path", d="M0 4L4 0M-1 1L1 -1M3 5L5 3", stroke="#777777", stroke_width="0.9")
    svg.close()
    svg.close()
    middle = left + grid_width / _f(2)
    svg.caption(middle, _f(_MARGIN + _TITLE), _TITLE, _INK, title)
    svg.caption(middle, x_label_at, _BODY, _INK, x_label)
    for i, note in enumerate(notes):
        svg.caption(middle, x_label_at + _f(16) + _f(15) * _f(i), _NOTE, _SOFT, note)

    svg.open("g", **{"class": "cells", "shape_rendering": "crispEdges"})
    for row in range(count):
        y = top + _f(row) * cell_height
        token = _cut_ems(full_label(row), 8.0 * _LABEL)
        svg.open("g", transform=f"translate({_text(left)} {_text(y)})")
        for layer in range(layers):
            score = values[row, layer]
            at = position(score)
            svg.tooltip(
                "rect",
                f"{token}, layer {layer}: {number(float(score))}",
                x=_num(_f(layer) * cell_width),
                width=_num(cell_width),
                height=_num(cell_height),
                fill="url(#hatch)" if at is None else _shade(kind, at),
            )
        svg.close()
    svg.close()

    svg.frame(left, top, grid_width, grid_height)
    svg.open("g", **{"class": "tokens", "text_anchor": "end", "fill": _INK})
    for row, text in enumerate(labels):
        y = top + (_f(row) + _f(0.5)) * cell_height
        svg.tick(left - _f(3), y, left, y)
        svg.text("text", text, x=_num(left - _f(6)), y=_num(y + _f(0.34) * _f(_BODY)))
    svg.close()
    svg.open("g", **{"class": "layers", "text_anchor": "middle", "fill": _INK})
    for layer in _layer_ticks(layers, math.ceil(_f(36) / cell_width)):
        x = left + (_f(layer) + _f(0.5)) * cell_width
        svg.tick(x, axis_bottom, x, axis_bottom + _f(3))
        svg.text("text", str(layer), x=_num(x), y=_num(axis_bottom + _f(15)))
    svg.close()

    svg.open("defs")
    svg.open("linearGradient", id="scale", x1="0", y1="1", x2="0", y2="0")
    anchors = _RAMPS[kind].split()
    for i, colour in enumerate(anchors[:1] if flat else anchors):
        svg.empty("stop", offset=_num(_f(i) / _f(8)), stop_color=f"#{colour}")
    svg.close()
    svg.close()
    svg.open("g", **{"class": "scale", "fill": _INK})
    svg.empty(
        "rect",
        x=_num(bar_left),
        y=_num(top),
        width=_num(bar_width),
        height=_num(bar_height),
        fill="url(#scale)",
    )
    svg.frame(bar_left, top, bar_width, bar_height)
    for at_bar, text in bar_ticks:
        y = top + (_f(1) - at_bar) * bar_height
        x = bar_left + bar_width
        svg.tick(x, y, x + _f(3), y)
        svg.text("text", text, x=_num(x + _f(6)), y=_num(y + _f(0.34) * _f(_BODY)))
    svg.text("text", value_label, x=_num(bar_left), y=_num(top + bar_height + _f(15)))
    svg.close()
    return svg.finish()


def _bar_labels(low: float, high: float, height: Any) -> list[tuple[np.float32, str]]:
    if high <= low:
        return [(_f(0.5), number(low))]
    count = int(min(max(_f(height) / _f(20), _f(4)), _f(8)))
    return [
        (_f(min(max((value - low) / (high - low), 0.0), 1.0)), text)
        for value, text in _ticks(low, high, count)
    ]


def map_of_grid(grid: Grid, ceiling: float | None = None) -> Svg:
    """The heat map of a grid (figure 1 of the paper)."""
    if not grid.scores.size:
        raise ValueError(f"{grid.prompt!r} was not traced: there is nothing to draw")
    kind = grid.kind if grid.kind in _RAMPS else "hidden"
    title = f"Impact of restoring {_NAMES[kind]} after corrupted input"
    if grid.kind in _SEVERED:
        title = f"Impact of restoring state with {_SEVERED[grid.kind]} severed"
    return _heat_map(
        title=title,
        x_label=f"single restored layer within {grid.model}"
        if kind == "hidden"
        else f"center of interval of {grid.window} restored {_NAMES[kind]} layers",
        value_label=f"p({grid.answer.strip()})",
        rows=grid.tokens,
        starred=range(grid.subject.start, grid.subject.stop),
        scores=grid.scores,
        kind=kind,
        low=grid.corrupted,
        high=grid.clean,
        ceiling=ceiling,
    )


def _titles_of(kind: str) -> tuple[str, str, str]:
    drawn = kind if kind in _RAMPS else "hidden"
    if kind in _SEVERED:
        title = f"Average indirect effect of a single state with {_SEVERED[kind]} severed"
    elif drawn == "hidden":
        title = "Average indirect effect of a single state"
    else:
        title = f"Average indirect effect of the {_NAMES[drawn]} window"
    below = "restored layer"
    if drawn != "hidden":
        below = f"center of the restored {_NAMES[drawn]} layers"
    return drawn, title, below


def map_of_averages(averages: Averages) -> Svg:
    """Average indirect effects by role and layer as a heat map (figure 2)."""
    from .averages import ROLES

    drawn, title, below = _titles_of(averages.kind)
    there = [at for at, rows in enumerate(averages.rows) if rows]
    return _heat_map(
        title=title,
        x_label=below,
        value_label="AIE",
        rows=[_ROLE_NAMES[ROLES[at]] for at in there],
        starred=range(0),
        scores=averages.effect[there],
        kind=drawn,
        low=0.0,
        high=None,
    )


def curves_of_averages(averages: Averages) -> Svg:
    """Average indirect effects by layer with their 95 % bands, a curve a role."""
    from .averages import ROLES

    _, title, below = _titles_of(averages.kind)
    series = [
        (
            _ROLE_NAMES[ROLES[at]],
            averages.effect[at].astype(np.float32),
            averages.half_width[at].astype(np.float32),
        )
        for at, rows in enumerate(averages.rows)
        if rows
    ]
    return _curves(title, below, "AIE", series)


def _curves(title: str, x_label: str, y_label: str, series: list[tuple[str, Any, Any]]) -> Svg:
    if not series or not len(series[0][1]):
        raise ValueError("no fact was traced: there is nothing to draw")
    wide, high_of = _f(460), _f(240)
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
    y_ticks = _ticks(low, high, 6)
    title, x_label = _cut_ems(visible(title), 60.0), _cut_ems(visible(x_label), 60.0)
    y_label = _cut_ems(visible(y_label), 24.0)
    names = [_cut_ems(visible(it[0]), 22.0) for it in series]

    tick_width = _widest(it[1] for it in y_ticks) * _f(_BODY)
    legend = _widest(names) * _f(_BODY) + _f(34)
    overhang = max((_ems(title) * _f(_TITLE) - wide) / _f(2), _f(0))
    left = np.ceil(_f(_MARGIN) + max(_f(_BODY + 6) + tick_width + _f(8), overhang))
    top = _f(_MARGIN + _TITLE + 10)
    bottom = top + high_of
    right = left + wide + max(_f(14) + legend, overhang)
    x_label_at = bottom + _f(34)
    legend_bottom = top + _f(6) + _f(18) * _f(len(names))
    height = max(x_label_at, legend_bottom) + _f(_MARGIN)
    svg = _Writer(np.ceil(right + _f(_MARGIN)), np.ceil(height), title)

    inset = _f(10)
    step = (wide - _f(2) * inset) / _f(layers - 1) if layers > 1 else _f(0)
    shift = _f(0) if layers > 1 else wide / _f(2) - inset

    def x_of(layer: int) -> np.float32:
        return _f(left + inset + shift + _f(layer) * step)

    def y_of(value: float) -> np.float32:
        return _f(top + high_of * (_f(1) - _f((value - low) / (high - low))))

    def point(layer: int, value: float) -> str:
        return f"{_num(x_of(layer))} {_num(y_of(value))}"

    middle = left + wide / _f(2)
    svg.caption(middle, _f(_MARGIN + _TITLE), _TITLE, _INK, title)
    svg.caption(middle, x_label_at, _BODY, _INK, x_label)
    at = f"translate({_num(_f(_MARGIN + _BODY))} {_num(top + high_of / _f(2))}) rotate(-90)"
    svg.text("text", y_label, transform=at, text_anchor="middle", fill=_INK)
    svg.open("g", **{"class": "grid", "stroke_width": "0.8"})
    for value, _ in y_ticks:
        y = y_of(value)
        svg.empty(
            "line",
            x1=_num(left),
            y1=_num(y),
            x2=_num(left + wide),
            y2=_num(y),
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
                stroke=f"#{_LINES[n % 7]}",
                stroke_opacity="0.4",
            )
            continue
        outline = [point(layer, ends[layer][1]) for layer in range(layers)]
        outline += [point(layer, ends[layer][0]) for layer in reversed(range(layers))]
        svg.empty("path", d=f"M{'L'.join(outline)}Z", fill=f"#{_LINES[n % 7]}")
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
                cx=_num(x_of(0)),
                cy=_num(y_of(float(mean[0]))),
                r="2.4",
                fill=f"#{_LINES[n % 7]}",
            )
            continue
        line = "L".join(point(layer, float(mean[layer])) for layer in range(layers))
        svg.tooltip(
            "path",
            visible(name),
            d=f"M{line}",
            stroke=f"#{_LINES[n % 7]}",
            stroke_dasharray=_DASHES[n % 4],
        )
    svg.close()
    svg.frame(left, top, wide, high_of)
    svg.open("g", **{"class": "values", "text_anchor": "end", "fill": _INK})
    for value, text in y_ticks:
        y = y_of(value)
        svg.tick(left - _f(3), y, left, y)
        svg.text("text", text, x=_num(left - _f(6)), y=_num(y + _f(0.34) * _f(_BODY)))
    svg.close()
    svg.open("g", **{"class": "layers", "text_anchor": "middle", "fill": _INK})
    spacing = math.ceil(_f(36) / step) if layers > 1 else 1
    for layer in _layer_ticks(layers, spacing):
        x = x_of(layer)
        svg.tick(x, bottom, x, bottom + _f(3))
        svg.text("text", str(layer), x=_num(x), y=_num(bottom + _f(15)))
    svg.close()
    svg.open("g", **{"class": "legend", "fill": _INK})
    for n, name in enumerate(names):
        x, y = left + wide + _f(14), top + _f(9) + _f(18) * _f(n)
        svg.empty(
            "line",
            x1=_num(x),
            y1=_num(y),
            x2=_num(x + _f(26)),
            y2=_num(y),
            stroke=f"#{_LINES[n % 7]}",
            stroke_width="1.7",
            stroke_dasharray=_DASHES[n % 4],
        )
        svg.text("text", name, x=_num(x + _f(32)), y=_num(y + _f(0.34) * _f(_BODY)))
    svg.close()
    return svg.finish()


def _interval(mean: Any, half: Any, layer: int) -> tuple[float, float]:
    around = float(half[layer])
    around = abs(around) if math.isfinite(around) else 0.0
    return float(mean[layer]) - around, float(mean[layer]) + around
