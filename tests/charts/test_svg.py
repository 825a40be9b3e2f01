from __future__ import annotations

import html
import json
import math
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.charts import Line, line_chart

ANY_NUMBER = st.none() | st.floats(allow_nan=True, allow_infinity=True)


def draw(moments: list[float], lines: list[Line], title: str = "calls") -> ET.Element:
    drawn = line_chart(moments, lines, title=title, value=lambda v: f"{v:g}", moment=lambda m: f"{m:g}")
    return ET.fromstring(drawn)


def test_chart_tells_its_data_to_those_who_cannot_see_it() -> None:
    chart = draw([1, 2, 3], [Line("p50", [1, None, 3]), Line("p95", [None, None, None])])
    assert (chart.findtext("title"), chart.findtext("desc")) == ("calls", "p50: last 3, highest 3; p95: no data")
    assert json.loads(chart.get("data-chart", "")) == {
        "x": [1, 2, 3], "lines": ["p50", "p95"], "y": [[1, None, 3], [None, None, None]],
    }  # fmt: skip


def test_a_gap_breaks_the_line() -> None:
    chart = draw([1, 2, 3, 4], [Line("a", [1, 2, None, 3])])
    assert [line.get("class") for line in chart.findall("polyline")] == ["line-0", "line-0"]


@pytest.mark.parametrize(
    ("highest", "ticks"), [(69, ["0", "40", "80"]), (0.0006825, ["0", "0.0004", "0.0008"]), (0, ["0", "0.5", "1"])]
)
def test_axes_end_at_round_numbers(highest: float, ticks: list[str]) -> None:
    chart = draw([1, 2], [Line("a", [0, highest])])
    assert [text.text for text in chart.findall("text")][:3] == ticks


@given(st.lists(st.tuples(st.floats(0, 2e9), ANY_NUMBER), max_size=20), st.text(max_size=20))
def test_whatever_comes_gives_well_formed_points_inside_the_view(
    points: list[tuple[float, float | None]], name: str
) -> None:
    name = "".join(one for one in name if one.isprintable())
    moments = sorted(at for at, _ in points)
    values = [abs(value) if value is not None else None for _, value in points]
    drawn = line_chart(moments, [Line(name, values)], title=name, value=str, moment=str)
    chart = ET.fromstring(drawn)
    for line in chart.findall("polyline"):
        numbers = [float(number) for number in re.split(r"[ ,]", line.get("points", ""))]
        assert all(math.isfinite(number) and 0 <= number <= 403 for number in numbers)
    assert html.escape(name) in drawn
