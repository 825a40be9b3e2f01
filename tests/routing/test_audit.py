from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from perfkit.errors import ServerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from perfkit.routing import ProviderRouter
    from perfkit.values import ChatRequest

    MakeRouter = Callable[..., ProviderRouter]

sdk = pytest.importorskip("opentelemetry.sdk.trace")


@pytest.fixture
def spans() -> Any:
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider = sdk.TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider.get_tracer("test"), exporter
    provider.shutdown()


def test_every_attempt_is_an_event_on_the_applications_span(
    spans: Any, router: MakeRouter, request_: ChatRequest
) -> None:
    tracer, exporter = spans
    made = router(a=ServerError("secret words of the provider"), b=0.25)
    with tracer.start_as_current_span("view"):
        made.execute_with_fallback(request_)
    (span,) = exporter.get_finished_spans()
    failed, answered = span.events
    assert (failed.name, answered.name) == ("perfkit.attempt", "perfkit.attempt")
    assert failed.attributes["perfkit.provider"] == "a"
    assert failed.attributes["perfkit.error"] == "ServerError"
    assert (answered.attributes["perfkit.provider"], answered.attributes["perfkit.outcome"]) == ("b", "ok")
    assert answered.attributes["perfkit.seconds"] == pytest.approx(0.25)
    assert "secret words" not in str(failed.attributes)


def test_an_attempt_that_answers_at_once_is_one_too(spans: Any, router: MakeRouter, request_: ChatRequest) -> None:
    tracer, exporter = spans
    with tracer.start_as_current_span("view"):
        router(a=0.0).execute_with_fallback(request_)
    ((event,),) = (span.events for span in exporter.get_finished_spans())
    assert (event.attributes["perfkit.provider"], event.attributes["perfkit.outcome"]) == ("a", "ok")


def test_calls_outside_of_a_span_are_told_nobody(spans: Any, router: MakeRouter, request_: ChatRequest) -> None:
    router(a=0.0).execute_with_fallback(request_)
    assert spans[1].get_finished_spans() == ()


def test_an_exporter_that_breaks_does_not_break_the_call(
    router: MakeRouter, request_: ChatRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    from opentelemetry import trace

    def broken() -> Any:
        raise RuntimeError("exporter is gone")

    monkeypatch.setattr(trace, "get_current_span", broken)
    assert router(a=0.0).execute_with_fallback(request_).provider == "a"
