"""Each section of the page is linked to its twin in JSON, and shows nothing that the twin does not hold."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from dashboard.filled import another_worker, fill, tables

import perfkit
from perfkit.dashboard import Panels, columns, formats
from perfkit.dashboard.page import live_part
from perfkit.testing import FaultServer

WORDS = [{"ended": 1.0, "model": "m", "asked": "why", "answered": "so", "seconds": 0.5}]
ELSEWHERE = {columns.FUNCTIONS[0][1], columns.MEANWHILE[0][1]}  # tables on the pages of flame graphs
NUMBERS = (formats.count, formats.seconds, formats.percent, formats.dollars, formats.size, formats.moment)


@pytest.fixture
def data(fault: FaultServer, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Return all panels after a workload that leaves something in each."""
    perfkit.configure(tables(fault, tmp_path / "store"))
    fill()
    with another_worker(tmp_path / "store"):
        yield Panels().all(600.0)


def sections(page: str) -> dict[str, str]:
    """Return the sections by their names."""
    return {part.partition('"')[0]: part for part in page.split('<section aria-labelledby="')[1:]}


def written(key: str, value: Any) -> Iterator[str]:
    """Yield each way in which the page may write a value of a twin, or one inside of it."""
    if isinstance(value, dict):
        yield from map(formats.name, value)
        for inner, one in value.items():
            yield f"{inner} {formats.measure(inner, one)}"
            yield from written(inner, one)
        if {"host", "pid"} <= set(value):
            yield f"{value['host']}:{value['pid']}"
        if {"limit", "remaining"} <= set(value):
            yield formats.percent(1 - value["remaining"] / value["limit"])
    elif isinstance(value, list | tuple):
        for one in value:
            yield from written(key, one)
        yield " ".join(filter(None, map(str, value)))
        yield " / ".join(formats.count(one) if isinstance(one, int) else str(one) for one in value)
    elif isinstance(value, int | float):
        scale = 1000 if key.endswith("_ms") else 1
        yield from (form(value / scale) for form in NUMBERS)
    else:
        yield formats.text(value)
        yield formats.name(value)


def shown(section: str) -> list[str]:
    """Return what the cells of a section's tables, and its tiles, show."""
    found = re.findall(r"<td[^>]*>(.*?)</td>|<strong>(.*?)</strong>", section)
    return [unescape(re.sub(r"<[^>]+>", "", "".join(one))) for one in found]


def test_what_a_section_lists_is_in_the_twin_that_it_links_to(data: dict[str, Any]) -> None:
    page = live_part(data, "10m", WORDS)
    listed = {unescape(name) for name in re.findall(r'role="region" aria-label="([^"]+)"', page)}
    assert listed == {getattr(columns, name)[0][1] for name in columns.__all__ if name != "Column"} - ELSEWHERE
    for name, section in sections(page).items():
        links = re.findall(r'class="twin" href="([^"]+)"', section)
        if name == "words":  # machines may not read these
            assert links == []
            continue
        assert links == [f"panels/{name}.json?range=10m"]
        known = {formats.NOTHING, *written("", data[name])}
        lost = [cell for cell in shown(section) if cell not in known and not set(cell.split(", ")) <= known]
        assert (name, lost) == (name, [])
        told = re.search(r"of worker ([^<]+)</small>", section)
        assert told is None or told[1] == data[name]["worker"]
        charts = [json.loads(unescape(chart)) for chart in re.findall(r'data-chart="([^"]+)"', section)]
        assert [line for chart in charts for line in (chart["x"], *chart["y"]) if line not in data[name].values()] == []
        assert len(charts) == (3 if name == "history" else 0)
