"""Flame graphs as SVG: width is time, what called stands below what it called; no script and no style inside.

After Brendan Gregg, "The Flame Graph" (CACM 59/6, 2016). Colours are classes, heat-0 to heat-5, chosen by name, so that
a function keeps its colour from one graph to the next; the page's CSS says what they look like.
"""

from __future__ import annotations

import zlib
from html import escape
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["HEATS", "flame_graph"]

WIDTH, ROW = 1200, 18  # units of the view box
HEATS = 6
LETTER = 6.6  # width of a letter of 11 px in a fixed-width font
NARROWEST = 0.6  # of a box that is still drawn
DEEPEST = 128  # rows


class _Box(NamedTuple):
    name: str
    depth: int
    left: float
    value: float


def flame_graph(stacks: Mapping[tuple[str, ...], float], *, title: str, value: Callable[[float], str]) -> str:
    """Return a flame graph.

    Args:
        stacks: names from the outermost call to the innermost, with what was spent there.
        title: what it shows, for those who cannot see it too.
        value: writes what was spent.
    """
    total = sum(stacks.values())
    boxes = list(_boxes(sorted(stacks.items()), 0.0, total)) if total > 0 else []
    height = ROW * (1 + max((box.depth for box in boxes), default=0))
    parts = [
        f'<svg class="flame" role="img" viewBox="0 0 {WIDTH} {height}" xmlns="http://www.w3.org/2000/svg">',
        f"<title>{escape(title)}</title>",
        *(_drawn(box, total, height, value) for box in boxes),
        "</svg>",
    ]
    return "".join(parts)


def _boxes(stacks: list[tuple[tuple[str, ...], float]], left: float, total: float) -> Iterator[_Box]:
    """Yield one box for each run of neighbours that share their beginning, level by level, without recursion."""
    level = [(left, stacks)]
    for depth in range(DEEPEST):
        deeper: list[tuple[float, list[tuple[tuple[str, ...], float]]]] = []
        for place, group in level:
            for box, inner in _grouped(group, depth, place):
                if box.value / total * WIDTH >= NARROWEST:
                    yield box
                    deeper.append((box.left, inner))
        level = deeper


def _grouped(
    group: list[tuple[tuple[str, ...], float]], depth: int, left: float
) -> Iterator[tuple[_Box, list[tuple[tuple[str, ...], float]]]]:
    parts: dict[str, list[tuple[tuple[str, ...], float]]] = {}
    for stack, spent in group:
        if len(stack) > depth:
            parts.setdefault(stack[depth], []).append((stack, spent))
    for name, inner in parts.items():
        spent = sum(value for _, value in inner)
        yield _Box(name, depth, left, spent), inner
        left += spent


def _drawn(box: _Box, total: float, height: int, value: Callable[[float], str]) -> str:
    x, width = box.left / total * WIDTH, box.value / total * WIDTH
    y = height - ROW * (box.depth + 1)
    heat = zlib.crc32(box.name.encode("utf-8", "replace")) % HEATS
    told = f"{box.name}: {value(box.value)} ({100 * box.value / total:.1f} %)"
    room = int((width - 4) / LETTER)
    short = box.name if len(box.name) <= room else box.name[: max(0, room - 1)] + "\N{HORIZONTAL ELLIPSIS}"
    label = f'<text x="{x + 2:.1f}" y="{y + 13}">{escape(short)}</text>' if room > 2 else ""  # noqa: PLR2004 - letters
    return (
        f'<g><title>{escape(told)}</title><rect class="heat-{heat}" x="{x:.1f}" y="{y}" width="{width:.1f}" '
        f'height="{ROW - 1}"/>{label}</g>'
    )
