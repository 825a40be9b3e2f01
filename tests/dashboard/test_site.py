from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest
from _noon import noon

import perfkit
from perfkit import FakeClock, PerformanceTracker
from perfkit.dashboard import SPANS, Dashboard, Panels
from perfkit.dashboard.formats import dollars
from perfkit.dashboard.page import ROWS, live_part
from perfkit.dashboard.panels import LATE, PANELS, span_named
from perfkit.profiling import Capture, SlowRun
from perfkit.profiling.frames import Frame
from perfkit.testing import FaultServer, faults

HOSTILE = "\"><script>alert(1)</script>'{{x}}&\x00\u202e"


@pytest.fixture
def dashboard(fault: FaultServer) -> Dashboard:
    """Return the dashboard of a process that has made 12 calls: 3 answered by the cache, 1 failed."""
    perfkit.configure(
        providers={"fake": {"kind": "openai", "base_url": fault.base_url, "api_key": "sk-secret"}},
        tokens={"fallback_price": {"input": 1e6, "output": 1e6}, "timezone": noon()},
    )
    for number in range(11):
        perfkit.chat(f"question {number % 8}", model="m", temperature=0, agent="support")
    fault.behave(faults.status(400))
    with pytest.raises(perfkit.PerfkitError):
        perfkit.chat("another", model="m")
    with perfkit.profile("work"):
        pass
    return Dashboard()


def read(dashboard: Dashboard, path: str, **query: str) -> dict[str, Any]:
    reply = dashboard.respond("GET", path, query)
    assert (reply.status, reply.headers["Content-Type"]) == (200, "application/json")
    data: dict[str, Any] = json.loads(reply.body, parse_constant=pytest.fail)  # NaN and Infinity are not JSON
    return data


def test_overview_counts_what_happened(dashboard: Dashboard) -> None:
    overview = read(dashboard, "panels/overview.json")
    assert overview["calls"] == overview["calls_today"] == 12
    assert overview["errors"] == 1
    assert overview["error_rate"] == pytest.approx(1 / 12)
    assert overview["cache_hit_rate"] == pytest.approx(3 / 11)
    assert overview["cost_today"] == perfkit.tracker.get_stats("cost")["sum"]
    assert overview["saved_by_cache"] == perfkit.tracker.get_stats("cache_saving")["sum"] > 0


def test_alerts_are_shown_with_what_they_are_of(dashboard: Dashboard) -> None:
    perfkit.alerts.add_rule("too_slow", "avg_response_time > 0s", duration=0, min_count=1)
    perfkit.alerts.evaluate()
    told = read(dashboard, "panels/alerts.json")
    assert told["rules"]["too_slow"] == "firing"
    assert told["alerts"][0]["rule"] == "too_slow"
    page = dashboard.respond("GET", "", {}).body.decode()
    assert '<td class="text">too_slow</td><td class="text"><span class="pill bad">firing</span></td>' in page
    assert "Quiet: " in page


def test_alerts_that_have_no_data_get_a_line_of_their_own_only_after_firing() -> None:
    data, row = Panels().all(600.0), dict.fromkeys(("severity", "since", "condition")) | {"labels": {}, "values": {}}
    alerts = [{**row, "rule": rule, "state": "no-data", "fired": rule == "lost"} for rule in ("idle", "lost")]
    data["alerts"] = {"rules": {"well": "inactive", "idle": "no-data", "lost": "no-data"}, "alerts": alerts}
    page = live_part(data, "10m")
    assert "Quiet: well<" in page
    assert "Nothing to judge lately: idle, lost<" in page
    assert '<td class="text">lost</td>' in page
    assert '<td class="text">idle</td>' not in page


def test_prometheus_may_scrape_it(dashboard: Dashboard) -> None:
    reply = dashboard.respond("GET", "metrics", {})
    assert reply.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert b"perfkit_agent_response_time_seconds_count" in reply.body


def test_every_panel_has_a_twin_and_all_are_in_one_document(dashboard: Dashboard) -> None:
    whole = read(dashboard, "data.json")
    assert set(whole) == set(PANELS)
    for name in PANELS:
        assert set(read(dashboard, f"panels/{name}.json")) == set(whole[name])


@pytest.mark.parametrize("chosen", SPANS)
def test_history_adds_up_to_the_overview(dashboard: Dashboard, chosen: str) -> None:
    history = read(dashboard, "panels/history.json", range=chosen)
    assert sum(history["calls"]) == 12
    assert sum(history["errors"]) == 1
    assert len(history["moments"]) == len(history["calls"]) == len(history["p95"])


def test_a_day_s_history_counts_every_slot_once() -> None:
    now = FakeClock(wall=3_600_000_000.0)  # what the shared tracker has not forgotten
    past = PerformanceTracker(clock=now)
    for _ in range(24 * 60):
        past.increment("llm_cache", tags={"result": "miss"})
        now.advance(60)
    perfkit.tracker.merge(past.snapshot())
    [calls] = [Panels(clock=now).history(86400.0)["calls"]]
    assert sum(calls) == 24 * 60
    assert set(calls[1:-2]) == {30}


def test_providers_are_told_with_their_refusals_and_cost(dashboard: Dashboard, fault: FaultServer) -> None:
    fault.behave(faults.rate_limited(retry_after=30))
    with pytest.raises(perfkit.PerfkitError):
        perfkit.chat("once more", model="m")
    panel = read(dashboard, "panels/providers.json")
    traffic = panel["traffic"]["fake"]
    assert (traffic["requests"], traffic["rate_limited"]) == (
        9,
        1,
    )  # what was wrong with a request is no failure of the provider
    assert traffic["cost"] == perfkit.tracker.get_stats("cost")["sum"]
    assert 0 < traffic["p50"] <= traffic["p95"]
    assert 0 < panel["health"]["fake"]["cooldown"] <= 30
    page = dashboard.respond("GET", "", {}).body.decode()
    assert '<th scope="col">429s</th>' in page
    assert "fake: cooling down for" in page


def test_a_provider_that_never_answered_has_no_response_time(fault: FaultServer) -> None:
    perfkit.configure(providers={"fake": {"kind": "openai", "base_url": fault.base_url, "api_key": "k"}})
    fault.behave(*[faults.status(500)] * 3)
    with pytest.raises(perfkit.PerfkitError):
        perfkit.chat("hi", model="m")
    page = Dashboard().respond("GET", "", {}).body.decode()
    row = page.partition('<td class="text">fake/m</td>')[2].partition("</tr>")[0]
    assert row.startswith("<td>3</td><td>0 %</td><td>\N{EN DASH}</td><td>\N{EN DASH}</td>")


def test_savings_by_prefix_caching_are_the_difference_to_uncached_tokens(fault: FaultServer) -> None:
    perfkit.configure(
        providers={"fake": {"kind": "openai", "base_url": fault.base_url, "api_key": "k"}},
        tokens={"prices": {"m": {"input": 10.0, "output": 0.0, "cache_read": 1.0}}},
    )
    fault.behave(faults.ok("text", usage={"prompt_tokens": 2000, "cached_tokens": 1500, "completion_tokens": 1}))
    perfkit.chat("hi", model="m")
    overview = read(Dashboard(), "panels/overview.json")
    assert overview["saved_by_prefix"] == pytest.approx(1500 * 9 / 1e6)
    assert "by prefix caching" in Dashboard().respond("GET", "", {}).body.decode()


def test_several_workers_are_told_with_their_memory(tmp_path: Path) -> None:
    stores: dict[str, Any] = {"store": str(tmp_path), "host": "here"}
    workers = [PerformanceTracker(**stores) for _ in range(2)]
    for worker in workers:
        worker.increment("asked")
        worker.flush()
    perfkit.configure(metrics=stores)
    panel = read(Dashboard(), "panels/workers.json")
    assert (panel["reporting"], panel["known"]) == (2, 2)
    assert all(row["memory"] > 2**20 and len(row["collections"]) == 3 for row in panel["workers"])
    page = Dashboard().respond("GET", "", {}).body.decode()
    assert "2 of 2 workers reporting" in page
    assert page.count("MiB") >= 2


def test_the_dashboard_does_not_show_its_own_requests() -> None:
    for operation in ("GET /perfkit/<path:rest>", "GET admin/perfkit/", "GET perfkit/x", "GET /ask", "GET /myperfkit/"):
        with perfkit.profile(operation):
            [run] = perfkit.profiler._running.running
            slow = run.slow = SlowRun(operation, "thread", 0.0, 0.3)
            slow.captures = (Capture(0.5, (Frame("f", "a.py", 1, own=True),)),)
            perfkit.profiler._found(slow)
    panel = read(Dashboard(), "panels/profiles.json")
    for part in ("latest", "slow"):
        assert sorted(one["operation"] for one in panel[part]) == ["GET /ask", "GET /myperfkit/"]


def test_the_daily_limit_stands_beside_the_cost(fault: FaultServer) -> None:
    perfkit.configure(tokens={"budgets": [{"scope": "global", "limit": 20.0, "period": "day"}]})
    assert read(Dashboard(), "panels/overview.json")["daily_limit"] == 20.0
    assert "0 % of $20.00 a day" in Dashboard().respond("GET", "", {}).body.decode()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "$0.00"),
        (8.5e-05, "$0.000085"),
        (0.1, "$0.10"),
        (0.04063, "$0.0406"),
        (1234.5, "$1,234.50"),
        (None, "\N{EN DASH}"),
    ],
)
def test_dollars_are_written_without_exponents(value: float | None, shown: str) -> None:
    assert dollars(value) == shown


def test_report_has_the_five_keys_of_the_guide(dashboard: Dashboard) -> None:
    report = read(dashboard, "report.json", operation="work", time_range="10m")
    assert set(report) == {"operation", "time_range", "performance_stats", "recent_profiles", "cost_analysis"}
    assert report["time_range"] == 600
    assert report["performance_stats"]["count"] == 1
    assert report["cost_analysis"]["support"]["m"]["request_count"] == 8
    timed = read(dashboard, "report.json", operation="agent_response_time")
    assert timed["performance_stats"]["count"] == 11


@pytest.mark.parametrize("chosen", [*SPANS, "", "nonsense", "99999999d"])
def test_page_is_made_for_every_range(dashboard: Dashboard, chosen: str) -> None:
    reply = dashboard.respond("GET", "", {"range": chosen})
    assert reply.status == 200
    page = reply.body.decode()
    assert ">12<" in page
    assert page.count("aria-current") == 1
    part = dashboard.respond("GET", "", {"range": chosen, "part": "live"}).body.decode()
    assert "<html" not in part
    assert ">12<" in part


def test_page_has_no_script_or_style_of_its_own_and_no_secret(dashboard: Dashboard) -> None:
    page = dashboard.respond("GET", "", {}).body.decode()
    assert (
        re.findall(r"<script(?! src=\"static/[\w.?]+\" defer></script>)|<style| style=| on\w+=|javascript:", page) == []
    )
    assert "sk-secret" not in page
    assert "question" not in page


def test_hostile_names_are_escaped_everywhere(fault: FaultServer) -> None:
    perfkit.configure(
        providers={HOSTILE: {"kind": "openai", "base_url": fault.base_url, "api_key": "k"}},
        tokens={
            "budgets": [{"scope": ["agent", HOSTILE], "limit": 1.0, "period": "day"}],
            "fallback_price": {"input": 1, "output": 1},
        },
    )
    perfkit.chat("hi", model=HOSTILE, agent=HOSTILE, max_tokens=5)
    with perfkit.profile(HOSTILE):
        pass
    dashboard = Dashboard()
    page = dashboard.respond("GET", "", {}).body.decode()
    assert page.count("&lt;script&gt;alert(1)") >= 4
    assert "<script>alert" not in page
    assert "\x00" not in page
    assert [row["agent"] for row in read(dashboard, "panels/tokens.json")["usage"]] == [HOSTILE]


@pytest.mark.parametrize(
    ("name", "seconds"),
    [("10m", 600), ("90s", 90), ("600", 600), ("2d", 86400), ("0", 1)]
    + [(wrong, None) for wrong in ("", "m", "1e9h", "-5m", "٣m", "10min", "1" * 99)],
)
def test_time_ranges_are_read_or_refused(name: str, seconds: float | None) -> None:
    assert span_named(name) == seconds


@pytest.mark.parametrize("path", ["data.json", "panels/cache.json", "report.json"])
def test_machines_are_told_that_a_time_range_is_none(path: str) -> None:
    asked = {"range": f"<{HOSTILE}", "time_range": f"<{HOSTILE}"}
    reply = Dashboard().respond("GET", path, asked)
    assert (reply.status, reply.headers["Content-Type"]) == (400, "text/plain; charset=utf-8")
    assert b"is no time range" in reply.body
    assert Dashboard().respond("GET", path, {"range": "", "time_range": ""}).status == 200


def test_json_of_a_panel_has_the_range_of_the_page(dashboard: Dashboard) -> None:
    page = dashboard.respond("GET", "", {"range": "6h"}).body.decode()
    links = re.findall(r'href="panels/(\w+)\.json\?range=6h"', page)
    assert set(links) == set(PANELS) - {"workers"}
    assert 'href="data.json?range=6h"' in page


def test_long_tables_show_what_matters_most() -> None:
    tokens = perfkit.TokenOptimizer.instance()
    for number in range(ROWS + 3):
        tokens.set_budget(("user", f"user {number}"), limit=1.0 + number, period="day")
        perfkit.tracker.record_metric("cost", 1.0 + number, {"agent": f"agent {number}", "model": "x" * 300})
    page = Dashboard().respond("GET", "", {}).body.decode()
    assert page.count(f"{ROWS} of {ROWS + 3}.") == 2
    assert ">agent 52</td>" in page
    assert ">agent 2</td>" not in page
    assert "x" * 120 + "\N{HORIZONTAL ELLIPSIS}" in page
    assert "x" * 121 not in page


@pytest.mark.parametrize(
    "path", ["nothing", "panels/nothing.json", "static/../site.py", "static/nothing.js", "panels/../data.json"]
)
def test_unknown_addresses_are_not_found(path: str) -> None:
    assert Dashboard().respond("GET", path, {}).status == 404


def test_words_are_shown_to_people_alone_and_only_where_that_is_switched_on(fault: FaultServer) -> None:
    perfkit.configure(providers={"fake": {"kind": "openai", "base_url": fault.base_url, "api_key": "k"}})
    dashboard = Dashboard()

    def page(*, person: bool) -> str:
        return dashboard.respond("GET", "", {}, person=person).body.decode()

    perfkit.chat("off", model="m")
    assert 'id="words"' not in page(person=True)
    perfkit.configure(dashboard={"prompts": True})
    assert "No call yet." in page(person=True)
    page(person=True)  # a second look tells no call twice
    for number in range(25):
        perfkit.chat([{"role": "user", "content": f"words {number} {HOSTILE}\n{'long ' * 1000}"}], model="m")
    shown = page(person=True)
    assert (shown.count("words "), shown.count("words 24 ")) == (40, 2)  # the latest 20, asked and answered
    assert "words 24 &quot;&gt;&lt;script&gt;" in shown
    assert "<script>alert" not in shown
    assert len(shown) < len(page(person=False)) + 40 * 1000
    assert "words " not in page(person=False) + json.dumps(read(dashboard, "data.json"))
    perfkit.configure(dashboard={"prompts": False})
    perfkit.chat("off again", model="m")
    perfkit.configure(dashboard={"prompts": True})
    assert "No call yet." in page(person=True)  # what was kept is gone


def test_nothing_can_be_changed() -> None:
    assert Dashboard().respond("POST", "", {}).status == 405
    assert Dashboard().respond("HEAD", "", {}).status == 200


def test_an_unused_process_has_a_page() -> None:
    page = Dashboard().respond("GET", "", {}).body.decode()
    reasons = ("No provider is configured", "No provider was asked", "No tokens were used", "No budget is set")
    for reason in (*reasons, "No connection was opened", "No type of agent", "Nothing was timed yet", "None in 1h."):
        assert reason in page
    overview = read(Dashboard(), "panels/overview.json")
    assert (overview["error_rate"], overview["cache_hit_rate"]) == (None, None)


def test_metrics_that_nobody_has_shared_yet_have_no_age(tmp_path: Path) -> None:
    perfkit.configure(metrics={"store": str(tmp_path)})
    workers = read(Dashboard(), "panels/workers.json")
    assert (workers["reporting"], workers["age"]) == (0, None)
    assert "no worker has reported yet" in Dashboard().respond("GET", "", {}).body.decode()
    assert workers["shared"]


def test_one_worker_of_a_store_is_not_told_to_set_a_store(tmp_path: Path) -> None:
    assert "set [metrics] store" in Dashboard().respond("GET", "", {}).body.decode()
    perfkit.configure(metrics={"store": str(tmp_path)})
    perfkit.tracker.increment("asked")
    perfkit.tracker.flush()
    assert "1 of 1 workers reporting" in Dashboard().respond("GET", "", {}).body.decode()


def test_a_worker_that_is_late_is_pointed_out(tmp_path: Path) -> None:
    perfkit.configure(metrics={"store": str(tmp_path)})
    perfkit.tracker.increment("asked")
    perfkit.tracker.flush()
    late = Dashboard(clock=FakeClock(wall=time.time() + LATE + 1)).respond("GET", "", {}).body.decode()
    assert '<p class="banner late">0 of 1 workers reporting' in late


def test_flame_graphs_of_profiles_and_slow_runs_have_pages(fault: FaultServer) -> None:
    perfkit.profiler.cpu_profile(HOSTILE, fn=lambda: sorted(range(200_000), key=str), engine="sampler")
    with perfkit.profile(HOSTILE):
        [run] = perfkit.profiler._running.running
        slow = SlowRun(HOSTILE, "thread", 0.0, 0.3)
        slow.captures = (Capture(0.5, (Frame(HOSTILE, "a.py", 1, own=True),)),)
        slow.overlapped = ({"kind": "provider", "name": HOSTILE, "seconds": 0.4},)
        run.slow = slow
        perfkit.profiler._found(slow)
    dashboard = Dashboard()
    panel = read(dashboard, "panels/profiles.json")
    numbers = [one["id"] for one in (*panel["slow"], *panel["recorded"])]
    assert len(numbers) == 2
    whole = dashboard.respond("GET", "", {}).body.decode()
    for number in numbers:
        assert f'href="profiles/{number}"' in whole
        reply = dashboard.respond("GET", f"profiles/{number}", {})
        page = reply.body.decode()
        assert reply.status == 200
        assert '<svg class="flame"' in page
        assert "<script" not in page
        assert " style=" not in page
        assert "default-src 'none'" in reply.headers["Content-Security-Policy"]


def test_a_profile_of_another_worker_is_asked_for_again_until_that_one_answers() -> None:
    dashboard, asked, replies = Dashboard(), "", []
    while (reply := dashboard.respond("GET", "profiles/1-r1", {"asked": asked})).headers.get("Refresh"):
        assert b"kept by worker 1, and " in reply.body
        asked = reply.headers["Refresh"].partition("; url=?asked=")[2]
        replies.append(reply.status)
    assert replies == [404] * 20
    assert reply.body == b"worker 1, which keeps this profile, does not answer"
    for number in (f"{os.getpid()}-none", "none", "-", "x-1"):
        forgotten = dashboard.respond("GET", f"profiles/{number}", {"asked": "9" * 9999})
        assert (forgotten.status, "Refresh" in forgotten.headers) == (404, False)
