from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any
from wsgiref.validate import validator

from _daemons import promtool
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perfkit.clock import FakeClock
from perfkit.metrics import PerformanceTracker
from perfkit.metrics.sinks.prometheus import CONTENT_TYPE, MetricsApp, render

if TYPE_CHECKING:
    from pathlib import Path

LINE = re.compile(
    r'[a-zA-Z_][a-zA-Z0-9_]*(\{([a-zA-Z_][a-zA-Z0-9_]*="([^"\\\n]|\\[\\n"])*",?)*\})? (-?[0-9.e+-]+|[+-]Inf)'
    r"|# (HELP|TYPE) .*"
)


def fill(tracker: PerformanceTracker) -> None:
    """Record one of each metric of the port."""
    tags = {"provider": "openai", "model": "gpt-4.1", "agent": "default"}
    for name in ("agent_response_time", "gc_compaction_duration", "chat_duration", "provider_latency", "gc_duration",
                 "operation_duration", "http_request_duration", "first_token", "llm_duration",
                 "time_per_output_token", "gc_time_total", "token_usage", "feedback_score"):  # fmt: skip
        tracker.record_metric(name, 0.25, tags)
    for name in ("gc_count", "cache_hit", "cache_miss", "provider_failure", "cost", "tokens_input", "llm_error"):
        tracker.increment(name, 2, tags)
    tracker.gauge("in_flight", 3, tags)


def samples(text: str) -> dict[str, str]:
    return dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))


def test_each_kind_has_its_type_and_unit(tracker: PerformanceTracker) -> None:
    tracker.record_metric("provider_latency", 0.3, {"provider": "openai"})
    tracker.increment("cache_hit", 3)
    tracker.gauge("queue", 5)
    tracker.gauge("queue", 2.5)
    tracker.record_metric("token_usage", 1500)
    text = render(tracker)
    found = samples(text)
    assert {line for line in text.splitlines() if line.startswith("# TYPE")} == {
        "# TYPE perfkit_provider_latency_seconds histogram",
        "# TYPE perfkit_cache_hit_total counter",
        "# TYPE perfkit_queue gauge",
        "# TYPE perfkit_token_usage histogram",
    }
    assert found["perfkit_cache_hit_total"] == "3"
    assert found["perfkit_queue"] == "2.5"
    latency = 'perfkit_provider_latency_seconds_bucket{provider="openai",le="%s"}'
    assert [found[latency % bound] for bound in ("0.25", "0.3535533905932738", "256", "+Inf")] == ["0", "1", "1", "1"]
    assert found['perfkit_provider_latency_seconds_count{provider="openai"}'] == "1"
    assert found['perfkit_token_usage_bucket{le="4096"}'] == "1"
    assert found["perfkit_token_usage_sum"] == "1500"


def test_nothing_recorded_is_an_empty_page(tracker: PerformanceTracker) -> None:
    assert render(tracker) == ""


def test_counts_never_go_down_when_old_slots_are_forgotten(clock: FakeClock) -> None:
    tracker = PerformanceTracker(clock=clock)
    tracker.increment("hits", 5)
    tracker.record_metric("latency", 1.0)
    clock.advance(3 * 86_400)
    tracker.increment("hits", 1)
    tracker.record_metric("latency", 1.0)
    found = samples(render(tracker))
    assert (found["perfkit_hits_total"], found["perfkit_latency_seconds_count"]) == ("6", "2")


def test_promtool_has_nothing_to_say_of_our_own_metrics(tracker: PerformanceTracker) -> None:
    fill(tracker)
    assert promtool("check", "metrics", stdin=render(tracker)) == (0, "")


def test_names_that_become_the_same_are_added_up(tracker: PerformanceTracker) -> None:
    """A line that comes twice would cost the whole scrape."""
    for name in ("a.b", "a_b", "a b"):
        tracker.increment(name, 1, {"x.y": "1"})
        tracker.record_metric(name, 2.0, {"x.y": "1"})
    tracker.gauge("a-b", 7)
    text = render(tracker)
    found = samples(text)
    assert found['perfkit_a_b_total{x_y="1"}'] == "3"
    assert {value for name, value in found.items() if "_count" in name} == {"3"}
    assert found.get("perfkit_a_b_gauge", found.get("perfkit_a_b")) == "7"
    assert promtool("check", "metrics", stdin=text)[0] in (0, 3)  # 3: style only


def test_tags_that_become_the_same_stay_apart_and_reserved_ones_are_renamed(tracker: PerformanceTracker) -> None:
    tracker.record_metric("x", 1.0, {"a.b": "1", "a_b": "2", "le": "3", "__name__": "4", "5": "6", "": "7"})
    labels = '{_="7",_5="6",a_b="1",a_b_="2",tag__name__="4",tagle="3"}'
    assert f"perfkit_x_count{labels}" in samples(render(tracker))


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["record_metric", "increment", "gauge"]),
            st.text(),
            st.floats(allow_nan=True),
            st.dictionaries(st.text(), st.text(), max_size=3),
        ),
        max_size=8,
    ),
    st.text(max_size=5),
)
def test_any_names_tags_and_values_make_a_well_formed_page(
    recorded: list[tuple[str, str, float, dict[str, str]]], prefix: str
) -> None:
    tracker = PerformanceTracker(clock=FakeClock())
    for method, name, value, tags in recorded:
        getattr(tracker, method)(name, value, tags)
    text = render(tracker, prefix=prefix)
    text.encode()
    lines = text.split("\n")[:-1]
    assert [line for line in lines if not LINE.fullmatch(line)] == []
    keys = [line.rsplit(" ", 1)[0] for line in lines if not line.startswith("#")]
    assert len(keys) == len(set(keys))
    types = [line.split(" ")[2] for line in lines if line.startswith("# TYPE")]
    assert len(types) == len(set(types))


def test_promtool_reads_a_page_of_hostile_names(tracker: PerformanceTracker) -> None:
    for n, text in enumerate(['a"b', "a\\b", "a\nb", "a{b}", "ü", "\ud800", "a b # c", "\r", "\u2028"]):
        tracker.increment(text, n, {text: text, "tag": text})
        tracker.record_metric(f"x{text}", n + 0.5, {"tag": text})
    code, told = promtool("check", "metrics", stdin=render(tracker))
    assert code in (0, 3), told  # 3: style only; 1 would be what cannot be parsed


# --- the page


def test_the_page_is_a_wsgi_application(tracker: PerformanceTracker) -> None:
    tracker.increment("hits")
    told: list[Any] = []
    environ = {
        "REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": "/metrics", "SERVER_NAME": "x", "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1", "QUERY_STRING": "", "wsgi.version": (1, 0), "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(), "wsgi.errors": io.StringIO(), "wsgi.multithread": True,
        "wsgi.multiprocess": True, "wsgi.run_once": False,
    }  # fmt: skip

    def start_response(*answer: Any) -> Any:
        told.append(answer)
        return lambda _: None

    reply: Any = validator(MetricsApp(tracker))(environ, start_response)
    assert b"perfkit_hits_total 1\n" in b"".join(reply)
    reply.close()
    assert told[0][0] == "200 OK"
    assert ("Content-Type", CONTENT_TYPE) in told[0][1]


def test_a_page_of_all_workers_is_that_of_their_store(tmp_path: Path) -> None:
    workers = [PerformanceTracker(store=str(tmp_path / "store")) for _ in range(3)]
    for worker in workers:
        worker.increment("cache_hit", 2, {"a": "b"})
        worker.record_metric("provider_latency", 0.3)
        worker.flush()
    found = samples(render(workers[0].merged()))
    assert (found['perfkit_cache_hit_total{a="b"}'], found["perfkit_provider_latency_seconds_count"]) == ("6", "3")
    for worker in workers:
        worker.close()
