"""Drawing as the command line draws: texts and their widths, ticks, colours, well-formed SVG."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from .kinds import OF_HEADS

FONTS = "'Times New Roman', 'Liberation Serif', 'Nimbus Roman', Times, serif"
BODY, TITLE, NOTE, MARGIN, LABEL = 12.0, 14.0, 10.0, 10.0, 20.0
INK, SOFT = "#1a1a1a", "#666666"
f32 = np.float32

#: ColorBrewer's sequential nine-class schemes, which the paper's figures use.
RAMPS = {
    "hidden": "fcfbfd efedf5 dadaeb bcbddc 9e9ac8 807dba 6a51a3 54278f 3f007d",
    "mlp": "f7fcf5 e5f5e0 c7e9c0 a1d99b 74c476 41ab5d 238b45 006d2c 00441b",
    "attn": "fff5f0 fee0d2 fcbba1 fc9272 fb6a4a ef3b2c cb181d a50f15 67000d",
}
#: Those that stand opposite, for effects that point the other way.
OPPOSITE = {
    "hidden": "fff5eb fee6ce fdd0a2 fdae6b fd8d3c f16913 d94801 a63603 7f2704",
    "mlp": RAMPS["hidden"],
    "attn": "f7fbff deebf7 c6dbef 9ecae1 6baed6 4292c6 2171b5 08519c 08306b",
}
#: Okabe and Ito (2008), without yellow.
LINES = "0072b2 d55e00 009e73 cc79a7 e69f00 56b4e9 000000".split()
DASHES = ("none", "7 3", "4 2", "8 3 2 3")
NAMES = {"hidden": "state", "mlp": "MLP", "attn": "Attn"}
STATES = {
    "resid_pre": "the residual before a block",
    "resid_mid": "the residual between attention and MLP",
    **OF_HEADS,
    **{f"{kind}_all": f"{said} at every token" for kind, said in OF_HEADS.items()},
    "neuron": "the strongest neuron",
}
SEVERED = {"hidden_severed_mlp": "MLP", "hidden_severed_attn": "attention"}
ROLE_NAMES = {
    "first subject": "first subject token",
    "middle subject": "middle subject tokens",
    "last subject": "last subject token",
    "first subsequent": "first subsequent token",
    "further": "further tokens",
    "last": "last token",
    "every": "every token",
}
#: Advance widths of ASCII 0x20 to 0x7e in thousandths of an em: the wider of Times and DejaVu Serif.
WIDEST = (
    "318 402 460 838 637 951 891 275 391 391 500 838 318 338 318 337 637 637 637 637 637 637 "
    "637 637 637 637 337 337 838 838 838 537 1000 723 735 766 802 730 694 799 873 396 401 "
    "748 665 1024 875 820 673 820 753 686 667 843 723 1028 722 722 695 391 337 391 838 500 "
    "500 597 641 561 641 592 371 641 645 320 311 606 320 949 645 603 641 641 479 514 402 645 "
    "565 856 564 565 527 637 337 637 838"
)
WIDTHS = [f32(int(it)) / f32(1000) for it in WIDEST.split()]


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
        return in_powers(value, 2)
    return f"{value:.4f}" if size < 0.1 else f"{value:.3f}" if size < 100.0 else f"{value:.0f}"


def in_powers(value: float, places: int) -> str:
    mantissa, _, exponent = f"{value:.{places}e}".partition("e")
    if "." in mantissa:
        mantissa = mantissa.rstrip("0").rstrip(".")
    return f"{mantissa}e{int(exponent)}"


def num(value: Any) -> str:
    """A coordinate to a hundredth of a pixel."""
    wide = float(value) * 100.0
    rounded = math.copysign(math.floor(abs(wide) + 0.5), wide) / 100.0 + 0.0
    text = np.format_float_positional(rounded, unique=True, trim="-")
    return "0" if text == "-0" else text


def shortest(value: Any) -> str:
    """A single as it is displayed: the shortest that says it."""
    return np.format_float_positional(f32(value), unique=True, trim="-")


def escape(text: str) -> str:
    pairs = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;"}
    out = []
    for c in text:
        legal = c in "\t\n\r" or " " <= c <= "\ufffd" or c >= "\U00010000"
        out.append(pairs.get(c, c) if legal else "\ufffd")
    return "".join(out)


def is_hidden(c: str) -> bool:
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
        elif unicodedata.category(c) == "Cc" or is_hidden(c):
            out.append(f"‹U+{ord(c):04X}›")
        else:
            out.append(c)
    return "".join(out)


def label_of(token: str) -> str:
    trimmed = token.strip(" ")
    return visible(trimmed) if trimmed else "␣" * len(token)


def columns(c: str) -> int:
    if unicodedata.combining(c) or unicodedata.category(c) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(c) in "WF" else 1


def ems(text: str) -> np.float32:
    """Most width in ems: exact for ASCII in the widest typeface, an estimate beyond it."""
    total = f32(0)
    for c in text:
        if " " <= c <= "~":
            total = total + WIDTHS[ord(c) - 0x20]
        else:
            total = total + f32((0.0, 1.0, 1.25)[columns(c)])
    return total


def cut(text: str, limit: float, measure: Any) -> str:
    if measure(text) <= limit:
        return text
    end = 0
    for at in range(1, len(text) + 1):
        if measure(text[:at]) > limit - 1.0:
            break
        end = at
    kept = text[:end].rstrip("\u200d ")
    return f"{kept}…"


def cut_ems(text: str, limit: float) -> str:
    return cut(text, limit, ems)


def ticks(low: float, high: float, count: int) -> list[tuple[float, str]]:
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
            text = "0" if k == 0 else in_powers(value, 3)
        else:
            text = f"{value:.{max(-exponent, 0)}f}"
        made.append((value, text))
    return made


def layer_ticks(layers: int, spacing: int) -> range:
    step, turn = 1, 0
    while step < max(spacing, 1):
        step = (2, 5, 10)[turn % 3] * 10 ** (turn // 3)
        turn += 1
    return range(0, layers, step)


def anchors(kind: str, two_sided: bool) -> list[str]:
    """The colours of a kind's scale from its floor on; on two sides the opposite ones first."""
    below = OPPOSITE[kind].split()[:0:-1] if two_sided else []
    return below + RAMPS[kind].split()


def shade(ramp: Sequence[str], position: Any) -> str:
    steps = len(ramp) - 1
    at = min(max(f32(position), f32(0)), f32(1)) * f32(steps)
    low = min(int(at), steps - 1)
    part = at - f32(low)
    out = "#"
    for i in (0, 2, 4):
        a, b = (f32(int(ramp[n][i : i + 2], 16)) for n in (low, low + 1))
        mixed = a + (b - a) * part
        out += f"{math.floor(float(mixed) + 0.5):02x}"
    return out


class Writer:
    """Well-formed SVG; elements close in the order in which they were opened."""

    def __init__(self, width: Any, height: Any, title: str) -> None:
        self.out: list[str] = []
        self.opened: list[str] = []
        self.open(
            "svg",
            xmlns="http://www.w3.org/2000/svg",
            width=num(width),
            height=num(height),
            viewBox=f"0 0 {num(width)} {num(height)}",
            role="img",
            font_family=FONTS,
            font_size="12",
        )
        self.text("title", title)
        self.empty("rect", width="100%", height="100%", fill="#ffffff")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        said = "".join(
            f" {key if key in ('viewBox', 'patternUnits') else key.replace('_', '-')}"
            f'="{escape(value)}"'
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
        self.out.append(f">{escape(text)}</{name}>\n")

    def tooltip(self, name: str, text: str, **attributes: str) -> None:
        self._start(name, attributes)
        self.out.append(f"><title>{escape(text)}</title></{name}>\n")

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
            x=num(x),
            y=num(y),
            text_anchor="middle",
            font_size=num(size),
            fill=fill,
        )

    def frame(self, x: Any, y: Any, width: Any, height: Any) -> None:
        self.empty(
            "rect",
            x=num(x),
            y=num(y),
            width=num(width),
            height=num(height),
            fill="none",
            stroke=INK,
            stroke_width="0.8",
        )

    def tick(self, x1: Any, y1: Any, x2: Any, y2: Any) -> None:
        self.empty(
            "line",
            x1=num(x1),
            y1=num(y1),
            x2=num(x2),
            y2=num(y2),
            stroke=INK,
            stroke_width="0.8",
        )


def gap_note(values: Iterable[Any]) -> str | None:
    gaps = sum(1 for value in values if not math.isfinite(value))
    if gaps == 0:
        return None
    return "1 value is not a number" if gaps == 1 else f"{gaps} values are not numbers"


def widest(texts: Iterable[str]) -> np.float32:
    widest = f32(0)
    for text in texts:
        widest = max(widest, ems(text))
    return widest
