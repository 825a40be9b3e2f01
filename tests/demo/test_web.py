from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from _parts import needs_module

from perfkit import demo
from perfkit.dashboard import Dashboard
from perfkit.demo import web
from perfkit.demo.ways import Endpoint, Setting
from perfkit.integrations.wsgi import PerfkitMiddleware

if TYPE_CHECKING:
    from perfkit.testing import LlamaServer

COUNTED = {"requests": 120.0, "answers": 87.0, "dollars": 0.5}
RIGHT = web.Web(
    visitors=8,
    seconds=1.0,
    counted=COUNTED,
    dashboard={**COUNTED, "dollars": 0.5 + 1e-12},
    p95_ms={"/ask": 100.0},
    limit=0.1,
    refused={web.POOR: 9},
    mixed_up=0,
    without_token=[403, 403],
)


def visited(llm: LlamaServer) -> web.Web:
    price = {"input": 2.5, "output": 10.0}
    return web.visited(Setting((Endpoint("first", "openai", llm.base_url, "none"),), "tiny", 10.0, {"tiny": price}))


def test_visitors_are_kept_apart_and_count_what_the_dashboard_says(llm: LlamaServer) -> None:
    seen = visited(llm)
    assert seen.wrong == []
    assert seen.counted == seen.dashboard
    assert seen.counted["requests"] == 8 * 3 * 5 == seen.counted["answers"] + seen.counted["errors"] + 8 * 3
    assert seen.refused == {"guest": seen.counted["errors"]}
    assert seen.counted["answers"] - seen.counted["from_cache"] >= 7 * 4  # each visitor paid for an own answer
    assert seen.counted["from_cache"] >= 7 * 4 * 2
    assert seen.p95_ms["/about"] < seen.p95_ms["/ask"]


def test_visitors_without_names_and_a_dashboard_for_everybody_are_noticed(
    llm: LlamaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "PerfkitMiddleware", lambda app, **_: PerfkitMiddleware(app))
    monkeypatch.setattr(Dashboard, "admits", lambda _: True)
    seen = visited(llm)
    assert seen.mixed_up > 0
    assert (seen.refused, seen.without_token) == ({}, [200, 200])
    assert len(seen.wrong) == 3


@pytest.mark.parametrize(
    ("differs", "said"),
    [
        ({"dashboard": {**COUNTED, "answers": 86.0}}, "counted 87 answers and the dashboard says 86"),
        ({"dashboard": {**COUNTED, "dollars": 0.499}}, "counted 0.5 dollars and the dashboard says 0.499"),
        ({"without_token": [403, 200]}, "the dashboard opened without its token"),
        ({"mixed_up": 1}, "1 answers went to more than one visitor"),
        ({"refused": {}}, "a budget refused nobody instead of guest"),
        ({"refused": {"ana": 1, "guest": 9}}, "a budget refused ana, guest instead of guest"),
    ],
)
def test_what_is_wrong_in_the_web_app_ends_the_demo_with_1(
    differs: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    needs_module("rich")
    from perfkit.demo.race import Row

    row = Row(
        name="today", calls=1, answered=1, failures={}, first_failure=None, resumed=0, seconds=1.0, per_second=1.0,
        p50_ms=1.0, p95_ms=1.0, p99_ms=1.0, first_token_p50_ms=None, cache_hits=0, tokens_in=1, tokens_out=1,
        cost=None, saved=None,
    )  # fmt: skip
    assert demo._code([row], RIGHT) == demo._code([row], None) == 0
    assert demo._code([row], replace(RIGHT, **differs)) == 1
    assert said in capsys.readouterr().err
