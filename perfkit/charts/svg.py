"""Line charts as SVG: readable without JavaScript and by screen readers; colours come from the CSS of the page."""

from __future__ import annotations

import json
import math
import sys
from html import escape
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Line", "line_chart"]

WIDTH, HEIGHT = 400, 160  # units of the view box, about pixels; the page scales it
LEFT, RIGHT, TOP, BOTTOM = 64, 8, 10, 22  # room for the axes
ROUND = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)  # times a power of ten: where an axis ends


class Line(NamedTuple):
    """One line: a name, and a value per moment, None where there is none."""

    name: str
    values: Sequence[float | None]


def line_chart(
    moments: Sequence[float],
    lines: Sequence[Line],
    *,
    title: str,
    value: Callable[[float], str],
    moment: Callable[[float], str],
) -> str:
    """Return a chart as SVG; its data stand beside it in `data-chart`, as JSON, for scripts to draw it anew.

    Args:
        moments: epoch seconds, ascending.
        lines: each with as many values as there are moments; drawn with the classes line-0, line-1, ...
        title: what it shows, for those who cannot see it too.
        value: writes a value.
        moment: writes a moment.
    """
    known = [one for line in lines for one in line.values if one is not None and math.isfinite(one)]
    top = _top(max(known, default=0.0))
    summary = "; ".join(f"{line.name}: {_told(line, value)}" for line in lines)
    data = escape(json.dumps(_data(moments, lines)))
    parts = [
        f'<svg class="chart" role="img" viewBox="0 0 {WIDTH} {HEIGHT}" data-chart="{data}">',
        f"<title>{escape(title)}</title><desc>{escape(summary)}</desc>",
        *_grid(top, value),
        *_moments(moments, moment),
    ]
    for place, line in enumerate(lines):
        for stretch in _stretches(moments, line.values, top):
            points = " ".join(f"{x:.1f},{y:.1f}" for x, y in stretch)
            parts.append(f'<polyline class="line-{place}" points="{points}"/>')
    return "".join([*parts, "</svg>"])


def _top(highest: float) -> float:
    """Return where the axis ends: the next round number, so that its half is round too."""
    if highest < sys.float_info.min:
        return 1.0
    unit = 10.0 ** math.floor(math.log10(highest))
    return next((part * unit for part in ROUND if part * unit >= highest), highest)


def _told(line: Line, value: Callable[[float], str]) -> str:
    known = [one for one in line.values if one is not None]
    return f"last {value(known[-1])}, highest {value(max(known))}" if known else "no data"


def _data(moments: Sequence[float], lines: Sequence[Line]) -> dict[str, object]:
    clean = [[one if one is None or math.isfinite(one) else None for one in line.values] for line in lines]
    return {"x": list(moments), "lines": [line.name for line in lines], "y": clean}


def _grid(top: float, value: Callable[[float], str]) -> list[str]:
    parts = []
    for part in (0.0, 0.5, 1.0):
        y = _height(part)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick end" x="{LEFT - 6}" y="{y + 4:.1f}">{escape(value(part * top))}</text>')
    return parts


def _moments(moments: Sequence[float], moment: Callable[[float], str]) -> list[str]:
    if not moments:
        return []
    shown = [(0, "start"), (len(moments) // 2, "middle"), (len(moments) - 1, "end")]
    return [
        f'<text class="tick {anchor}" x="{_across(moments, moments[place]):.1f}" y="{HEIGHT - 6}">'
        f"{escape(moment(moments[place]))}</text>"
        for place, anchor in shown
    ]


def _stretches(moments: Sequence[float], values: Sequence[float | None], top: float) -> list[list[tuple[float, float]]]:
    """Return the unbroken parts of a line as points; a single value becomes a short dash."""
    stretches: list[list[tuple[float, float]]] = [[]]
    for at, value in zip(moments, values, strict=True):
        if value is None or not math.isfinite(value):
            stretches.append([])
        else:
            stretches[-1].append((_across(moments, at), _height(value / top)))
    return [one if len(one) > 1 else [one[0], (one[0][0] + 2, one[0][1])] for one in stretches if one]


def _across(moments: Sequence[float], at: float) -> float:
    span = moments[-1] - moments[0] or 1.0
    return LEFT + (WIDTH - LEFT - RIGHT) * (at - moments[0]) / span


def _height(part: float) -> float:
    return TOP + (HEIGHT - TOP - BOTTOM) * (1 - part)
