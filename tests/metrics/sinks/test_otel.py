from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from _forks import in_child
from _parts import needs_module

import perfkit
from perfkit import Client, ProviderRouter
from perfkit.errors import ConfigError, PerfkitError, UnknownNameError
from perfkit.metrics import PerformanceTracker
from perfkit.metrics.sinks.calls import FinishedCall
from perfkit.metrics.sinks.otel import OtelSink
from perfkit.metrics.sinks.semconv import chosen_profile, provider_name
from perfkit.providers import create_provider
from perfkit.testing import faults
from perfkit.values import Attempt, ChatRequest

if TYPE_CHECKING:
    from perfkit.testing import FaultServer


class Sdk(NamedTuple):
    """The real SDK, keeping in memory what it would export."""

    meters: Any
    tracers: Any
    reader: Any
    exporter: Any

    def metrics(self) -> dict[str, Any]:
        """Return each metric by name."""
        data = self.reader.get_metrics_data()
        scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics] if data else []
        return {metric.name: metric for scope in scopes for metric in scope.metrics}

    def points(self, name: str) -> list[tuple[dict[str, Any], Any]]:
        """Return attributes and data point of each series of a metric."""
        return [(dict(point.attributes), point) for point in self.metrics()[name].data.data_points]

    def spans(self) -> Any:
        return self.exporter.get_finished_spans()


@pytest.fixture
def sdk() -> Iterator[Sdk]:
    needs_module("opentelemetry")
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    reader, exporter = InMemoryMetricReader(), InMemorySpanExporter()
    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    meters = MeterProvider([reader], shutdown_on_exit=False)
    yield Sdk(meters, tracers, reader, exporter)
    meters.shutdown()
    tracers.shutdown()


def sink_of(sdk: Sdk, **options: Any) -> OtelSink:
    return OtelSink(meter_provider=sdk.meters, tracer_provider=sdk.tracers, **options)


# --- metrics


def test_every_metric_arrives_as_the_instrument_it_is(sdk: Sdk) -> None:
    tracker = PerformanceTracker()
    tracker.add_sink(sink_of(sdk))
    for n in range(1, 101):
        tracker.record_metric("provider_latency", n / 1000, {"provider": "openai"})
    tracker.record_metric("token_usage", 1500)
    tracker.increment("cache_hit", 3)
    tracker.increment("cache_hit", 4)
    tracker.gauge("queue", 5)
    tracker.close()
    ((attributes, point),) = sdk.points("perfkit.provider_latency")
    assert (attributes, point.count, point.sum) == ({"provider": "openai"}, 100, pytest.approx(5.05))
    assert (point.min, point.max) == (0.001, 0.1)
    assert sdk.metrics()["perfkit.provider_latency"].unit == "s"
    assert sdk.points("perfkit.token_usage")[0][1].sum == 1500
    assert sdk.points("perfkit.cache_hit")[0][1].value == 7
    assert sdk.metrics()["perfkit.cache_hit"].data.is_monotonic
    assert sdk.points("perfkit.queue")[0][1].value == 5


def test_any_name_is_made_one_that_is_allowed_and_kinds_stay_apart(sdk: Sdk, recwarn: Any) -> None:
    sink = sink_of(sdk, prefix="")
    for name in ("ü\n|", "", "1x", "x" * 999, "a b", "a_b"):
        sink.emit("counter", name, 1, {"ta g": "ü"})
    sink.emit("timing", "a b", 1.0, {})
    sink.emit("counter", "a b", -1, {})
    sink.flush()
    assert sorted(sdk.metrics()) == sorted(["m___", "m", "m1x", "x" * 230, "a_b", "a_b.timing"])
    assert sdk.points("a_b")[0][1].value == 2
    assert sink.dropped == 1


def test_too_many_values_are_dropped_oldest_first_and_counted(sdk: Sdk) -> None:
    sink = sink_of(sdk)
    for _ in range(100_010):
        sink.emit("counter", "x", 1, {})
    sink.flush()
    assert (sink.dropped, sdk.points("perfkit.x")[0][1].value) == (10, 100_000)


def test_a_forked_child_hands_over_only_its_own(sdk: Sdk) -> None:
    sink = sink_of(sdk)
    sink.emit("counter", "x", 1, {})

    def work() -> Any:
        sink.emit("counter", "y", 1, {})
        sink.flush()
        return sorted(sdk.metrics())

    assert in_child(work) == ["perfkit.y"]


def test_without_the_package_the_sink_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.delitem(sys.modules, "opentelemetry.trace", raising=False)
    with pytest.raises(ConfigError, match=r"pip install 'perfkit\[otel\]'"):
        OtelSink()


def by_argument(_: pytest.MonkeyPatch) -> None:
    perfkit.configure(metrics={"otel": True})


def by_file(_: pytest.MonkeyPatch) -> None:
    Path("perfkit.toml").write_text("[metrics]\notel = true\n")
    perfkit.reset()


def by_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERFKIT_METRICS__OTEL", "true")
    perfkit.reset()


@pytest.mark.parametrize("switch_on", [by_argument, by_file, by_environment])
def test_a_setting_hands_metrics_and_calls_to_the_applications_sdk_and_another_ends_it(
    switch_on: Callable[[pytest.MonkeyPatch], None], sdk: Sdk, fault: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("opentelemetry.metrics.get_meter", lambda name, **_: sdk.meters.get_meter(name))
    monkeypatch.setattr("opentelemetry.trace.get_tracer", lambda name, **_: sdk.tracers.get_tracer(name))
    switch_on(monkeypatch)
    perfkit.configure(
        providers={"main": {"kind": "openai", "base_url": fault.base_url, "api_key": "k"}}, metrics={"prefix": "shop"}
    )
    assert perfkit.chat("hello", model="gpt-x").text
    perfkit.tracker.flush()
    assert [span.name for span in sdk.spans()] == ["chat gpt-x"]
    assert "shop.agent_response_time" in sdk.metrics()
    perfkit.configure(metrics={"otel": False})
    assert perfkit.chat("hello", model="gpt-x").text
    assert len(sdk.spans()) == 1


def test_the_setting_without_the_package_says_what_to_install_and_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    perfkit.tracker.increment("before")
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.delitem(sys.modules, "opentelemetry.trace", raising=False)
    with pytest.raises(ConfigError, match=r"pip install 'perfkit\[otel\]'"):
        perfkit.configure(metrics={"otel": True})
    perfkit.tracker.increment("before")
    assert perfkit.tracker.get_stats("before")["sum"] == 2
    assert not perfkit.tracker.settings.otel


# --- calls


class Served(NamedTuple):
    """A client whose calls the SDK is told of."""

    client: Client
    sdk: Sdk
    fault: FaultServer


@pytest.fixture
def serve(sdk: Sdk, fault: FaultServer) -> Iterator[Callable[..., Served]]:
    trackers: list[PerformanceTracker] = []

    def build(**options: Any) -> Served:
        tracker = PerformanceTracker()
        tracker.add_sink(sink_of(sdk, **options))
        trackers.append(tracker)
        router = ProviderRouter(tracker=tracker, strategy="priority")
        optimizer = perfkit.TokenOptimizer(tracker=tracker, prices={"gpt-x": {"input": 1.0, "output": 2.0}})
        for name, priority in (("openai", 1), ("mistral", 2)):
            provider = create_provider("openai", base_url=fault.base_url, api_key="k", models=["gpt-x"])
            router.register_provider(name, provider, priority=priority)
        cache = perfkit.ResponseCache(tracker=tracker)
        return Served(Client(router=router, optimizer=optimizer, cache=cache, tracker=tracker), sdk, fault)

    yield build
    for tracker in trackers:
        tracker.close()


def test_a_call_is_a_span_with_the_conventions_and_the_guides_attributes(serve: Callable[..., Served]) -> None:
    client, sdk, _ = serve()
    answer = client.chat("hello you", model="gpt-x", agent="greeter", max_tokens=20, cache="never")
    (span,) = sdk.spans()
    usage = answer.usage
    assert span.name == "chat gpt-x"
    assert (span.kind.name, span.status.status_code.name) == ("CLIENT", "OK")
    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-x",
        "gen_ai.response.model": answer.model,
        "gen_ai.request.max_tokens": 20,
        "gen_ai.usage.input_tokens": usage.prompt_tokens,
        "gen_ai.usage.output_tokens": usage.completion_tokens,
        "agent.name": "greeter",
        "provider.name": "openai",
        "model.name": "gpt-x",
        "prompt.length": 9,
        "response.length": len(answer.text),
        "tokens.prompt": usage.prompt_tokens,
        "tokens.completion": usage.completion_tokens,
        "perfkit.cached": "no",
        "perfkit.cost": answer.cost,
    }
    assert expected.items() <= dict(span.attributes).items()
    assert (span.end_time - span.start_time) / 1e9 == pytest.approx(answer.latency, abs=0.001)
    (event,) = span.events
    assert event.name == "perfkit.attempt"
    assert {"provider": "openai", "outcome": "ok"}.items() <= dict(event.attributes).items()
    assert not any("hello" in str(value) for value in span.attributes.values())


def test_a_span_is_the_child_of_the_callers_span_in_every_thread(serve: Callable[..., Served]) -> None:
    client, sdk, _ = serve()
    tracer = sdk.tracers.get_tracer("app")

    def ask(n: int) -> None:
        with tracer.start_as_current_span(f"request {n}"):
            client.chat(f"hello {n}", model="gpt-x", cache="never")
            "".join(client.stream(f"stream {n}", model="gpt-x", cache="never"))

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    requests = {span.context.span_id: span for span in sdk.spans() if span.name.startswith("request")}
    calls = [span for span in sdk.spans() if span.name == "chat gpt-x"]
    assert sorted(span.parent.span_id for span in calls) == sorted([*requests, *requests])
    assert len(requests) == 4


def test_a_failed_call_is_an_error_with_its_attempts_and_is_counted(serve: Callable[..., Served]) -> None:
    client, sdk, fault = serve()
    fault.behave(faults.server_error())
    with pytest.raises(perfkit.PerfkitError) as caught:
        client.chat("hello", model="gpt-x", timeout=2, cache="never")
    (span,) = sdk.spans()
    kind = type(caught.value).__name__
    assert (span.status.status_code.name, span.attributes["error.type"]) == ("ERROR", kind)
    attempts = [event for event in span.events if event.name == "perfkit.attempt"]
    assert len(attempts) == len(caught.value.attempts) >= 2
    assert {event.attributes["outcome"] for event in attempts} == {"error"}
    assert [
        event.attributes["exception.type"].rpartition(".")[2] for event in span.events if event.name == "exception"
    ] == [kind]
    ((attributes, point),) = sdk.points("gen_ai.client.operation.duration")
    assert (attributes["error.type"], point.count) == (kind, 1)
    assert {(a["gen_ai.token.type"], p.sum) for a, p in sdk.points("gen_ai.client.token.usage")} == {
        ("input", 0),
        ("output", 0),
    }


def test_what_a_provider_repeats_of_a_prompt_in_its_refusal_is_in_no_span(serve: Callable[..., Served]) -> None:
    client, sdk, fault = serve()
    fault.behave(faults.status(400, body={"error": {"message": "cannot read 'my secret'", "type": "invalid"}}))
    with pytest.raises(perfkit.PerfkitError, match="my secret"):
        client.chat("my secret", model="gpt-x", cache="never")
    (span,) = sdk.spans()
    assert "my secret" not in span.to_json()
    assert span.status.description == "BadRequestError"


def test_a_fallback_shows_both_providers(serve: Callable[..., Served]) -> None:
    client, sdk, fault = serve()
    fault.behave(faults.server_error(), then="ok")
    assert client.chat("hello", model="gpt-x", cache="never").provider
    (span,) = sdk.spans()
    assert [event.attributes["outcome"] for event in span.events] == ["error", "ok"]
    assert span.attributes["perfkit.attempts"] == 2


def test_the_released_names_are_those_of_the_published_package(serve: Callable[..., Served]) -> None:
    from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
    from opentelemetry.semconv._incubating.metrics import gen_ai_metrics

    client, sdk, _ = serve(profile="released")
    client.chat("hello", model="gpt-x", cache="never")
    "".join(client.stream("hello", model="gpt-x", cache="never"))
    published = {value for module in (gen_ai_attributes, gen_ai_metrics) for value in vars(module).values()
                 if isinstance(value, str) and value.startswith("gen_ai.")}  # fmt: skip
    ours = {name for name in sdk.metrics() if name.startswith("gen_ai.")}
    assert ours >= {
        "gen_ai.client.operation.duration",
        "gen_ai.client.operation.time_to_first_chunk",
        "gen_ai.client.operation.time_per_output_chunk",
        "gen_ai.client.token.usage",
    }
    attributes = {name for span in sdk.spans() for name in span.attributes if name.startswith("gen_ai.")}
    attributes |= {
        name for metric in ours for found, _ in sdk.points(metric) for name in found if name.startswith("gen_ai.")
    }
    assert (ours | attributes) - published == set()
    ((_, point),) = sdk.points("gen_ai.client.operation.duration")
    assert point.explicit_bounds == (
        0.01,
        0.02,
        0.04,
        0.08,
        0.16,
        0.32,
        0.64,
        1.28,
        2.56,
        5.12,
        10.24,
        20.48,
        40.96,
        81.92,
    )


def test_the_new_names_count_tokens_apart(serve: Callable[..., Served]) -> None:
    client, sdk, _ = serve(profile="new")
    answer = client.chat("hello", model="gpt-x", cache="never")
    assert sdk.points("gen_ai.client.inference.duration")[0][1].count == 1
    for part, n in (("input", answer.usage.prompt_tokens), ("output", answer.usage.completion_tokens)):
        assert sdk.points(f"gen_ai.client.inference.usage.{part}_tokens")[0][1].value == n
        assert sdk.points(f"gen_ai.client.inference.operation.{part}_tokens")[0][1].sum == n
    assert not [name for name in sdk.metrics() if name.startswith("gen_ai.client.operation")]


def test_an_answer_of_the_cache_is_a_span_and_no_operation(serve: Callable[..., Served]) -> None:
    client, sdk, _ = serve()
    for _ in range(3):
        client.chat("hello", model="gpt-x", temperature=0)
    assert [span.attributes["perfkit.cached"] for span in sdk.spans()] == ["no", "exact", "exact"]
    assert sdk.points("gen_ai.client.operation.duration")[0][1].count == 1


def test_a_sink_that_fails_does_not_fail_the_call(
    serve: Callable[..., Served], caplog: pytest.LogCaptureFixture
) -> None:
    client, _, _ = serve()

    class Broken:
        def emit(self, *_: Any) -> None: ...
        def flush(self) -> None: ...
        def close(self) -> None: ...
        def finished(self, call: FinishedCall) -> None:
            raise LookupError

    client._meter._tracker.add_sink(Broken())
    assert client.chat("hello", model="gpt-x", cache="never").text
    assert "Broken failed" in caplog.text


def test_without_such_a_sink_nothing_is_made_of_a_call(fault: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = PerformanceTracker()
    tracker.add_sink("logging")
    monkeypatch.setattr(PerformanceTracker, "finished", lambda *_, **__: pytest.fail("told"))
    router = ProviderRouter(tracker=tracker)
    router.register_provider("a", create_provider("openai", base_url=fault.base_url, api_key="k", models=["m"]))
    assert Client(router=router, tracker=tracker).chat("hello", model="m").text
    tracker.close()


# --- names


def test_the_environment_chooses_the_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen_profile() is chosen_profile("released")
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "http, gen_ai_latest_experimental")
    assert chosen_profile() is chosen_profile("new")
    assert chosen_profile("released") is not chosen_profile()
    with pytest.raises(UnknownNameError, match="new, released"):
        chosen_profile("old")


def test_providers_have_the_conventions_names() -> None:
    from opentelemetry.semconv._incubating.attributes.gen_ai_attributes import GenAiProviderNameValues

    known = {value.value for value in GenAiProviderNameValues}
    named = (
        "openai",
        "anthropic",
        "gemini",
        "groq",
        "mistral",
        "azure",
        "bedrock",
        "xai",
        "deepseek",
        "openai_responses",
    )
    assert {provider_name(name) for name in named} <= known
    assert provider_name("my-server") == "my-server"


def test_attempts_come_from_the_error_when_there_is_one() -> None:
    attempt = Attempt("a", "m", 0.0, 1.0, "error")
    request = ChatRequest([{"role": "user", "content": "hi"}], "m")
    assert FinishedCall(request=request, error=PerfkitError("x", attempts=(attempt,))).attempts == (attempt,)
    assert FinishedCall(request=request, error=KeyError()).attempts == ()
