from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import Any
from wsgiref.util import FileWrapper, setup_testing_defaults

import pytest

import perfkit
from perfkit import FakeClock, PerformanceTracker
from perfkit.integrations._web import METRIC, Visits
from perfkit.integrations.wsgi import ROUTE, PerfkitMiddleware
from perfkit.pipeline.scoping import Scope, current_scope


@pytest.fixture
def tracker() -> PerformanceTracker:
    return PerformanceTracker()


@pytest.fixture
def visits(clock: FakeClock, tracker: PerformanceTracker) -> Visits:
    return Visits(tracker=tracker, clock=clock)


def request(app: Any, **environ: Any) -> list[bytes]:
    """Serve one request as a server does: start, iterate, close."""
    setup_testing_defaults(environ)
    body = app(environ, lambda *_: lambda _: None)
    try:
        return list(body)
    finally:
        if hasattr(body, "close"):
            body.close()


def test_a_request_lasts_to_the_end_of_its_body(visits: Visits, clock: FakeClock, tracker: PerformanceTracker) -> None:
    def app(environ: Any, start: Any) -> Iterator[bytes]:
        start("200 OK", [])
        environ[ROUTE] = "/shop/<id>"
        clock.advance(1)
        yield b"a"
        clock.advance(2)
        yield b"b"

    assert request(PerfkitMiddleware(app, visits=visits)) == [b"a", b"b"]
    stats = tracker.get_stats(METRIC, tags={"route": "/shop/<id>", "method": "GET", "status": "2xx"})
    assert (stats["count"], stats["sum"]) == (1, 3.0)


def test_a_user_that_cannot_be_asked_is_refused_at_once() -> None:
    with pytest.raises(TypeError, match=r"user must be a callable, .* not 'ann'"):
        PerfkitMiddleware(lambda *_: [], user="ann")  # type: ignore[arg-type]


def test_an_application_that_fails_is_a_5xx_and_its_scope_ends(visits: Visits, tracker: PerformanceTracker) -> None:
    def app(environ: Any, start: Any) -> Iterable[bytes]:
        raise KeyError("no")

    with pytest.raises(KeyError):
        request(PerfkitMiddleware(app, visits=visits))
    assert tracker.get_stats(METRIC, tags={"status": "5xx", "route": "", "method": "GET"})["count"] == 1
    assert current_scope() is None


def test_a_body_that_is_left_is_closed_and_counted_once(visits: Visits, tracker: PerformanceTracker) -> None:
    class Body:
        closed = 0

        def __iter__(self) -> Iterator[bytes]:
            yield b"x"

        def close(self) -> None:
            Body.closed += 1
            raise OSError("client gone")

    def app(environ: Any, start: Any) -> Body:
        start("200 OK", [])
        return Body()

    environ = {"REQUEST_METHOD": "GET"}
    reply: Any = PerfkitMiddleware(app, visits=visits)(environ, lambda *_: lambda _: None)
    with pytest.raises(OSError, match="gone"):
        reply.close()
    with pytest.raises(OSError, match="gone"):
        reply.close()
    assert Body.closed == 2
    assert tracker.get_stats(METRIC)["count"] == 1


def test_a_file_is_left_to_the_server(visits: Visits, tracker: PerformanceTracker) -> None:
    import io

    file = FileWrapper(io.BytesIO(b"x"))
    environ = {"wsgi.file_wrapper": FileWrapper, "REQUEST_METHOD": "GET"}
    assert PerfkitMiddleware(lambda *_: file, visits=visits)(environ, lambda *_: lambda _: None) is file
    assert tracker.get_stats(METRIC)["count"] == 1


def test_a_file_is_left_to_a_server_whose_wrapper_is_a_function(visits: Visits, tracker: PerformanceTracker) -> None:
    import io

    def wrap(file: Any, size: int = 8192) -> Any:
        return file

    def app(environ: Any, start: Any) -> Any:
        start("200 OK", [])
        return environ["wsgi.file_wrapper"](file, 4096) if environ["PATH_INFO"] == "/file" else [b"text"]

    file = io.BytesIO(b"x")
    measured = PerfkitMiddleware(app, visits=visits)
    environ = {"wsgi.file_wrapper": wrap, "REQUEST_METHOD": "GET", "PATH_INFO": "/file"}
    assert measured(environ, lambda *_: lambda _: None) is file
    assert request(measured, **{"wsgi.file_wrapper": wrap, "PATH_INFO": "/"}) == [b"text"]
    assert tracker.get_stats(METRIC)["count"] == 2


def test_calls_inside_have_the_user_and_the_deadline_of_the_request(visits: Visits, clock: FakeClock) -> None:
    perfkit.configure(web={"request_timeout": 7})
    seen: list[Scope | None] = []

    def app(environ: Any, start: Any) -> Iterator[bytes]:
        start("200 OK", [])
        yield b""
        seen.append(current_scope())

    request(PerfkitMiddleware(app, user=lambda environ: environ["REMOTE_USER"], visits=visits), REMOTE_USER="ann")
    [scope] = seen
    assert scope is not None
    assert callable(scope.user)
    assert (scope.user(), scope.deadline) == ("ann", clock.now() + 7)
    assert current_scope() is None


def test_a_request_that_was_never_closed_leaves_its_user_to_nobody(visits: Visits) -> None:
    seen: list[Scope | None] = []

    def app(environ: Any, start: Any) -> Iterator[bytes]:
        start("200 OK", [])
        seen.append(current_scope())
        yield b""

    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    list(PerfkitMiddleware(app, user=lambda _: "ann", visits=visits)(environ, lambda *_: lambda _: None))
    request(PerfkitMiddleware(app, visits=visits))
    assert seen[0] is not None
    assert seen[1] is not None
    assert callable(seen[0].user)
    assert seen[1].user is None


def test_garbage_is_collected_after_the_reply_only_when_asked_for(clock: FakeClock) -> None:
    class Collector:
        idle: list[bool] = []

        def collect_between_requests(self, *, idle: bool, lull: bool) -> None:
            if not lull:
                self.idle.append(idle)

    inside, leave = threading.Event(), threading.Event()

    def slow(environ: Any, start: Any) -> Iterator[bytes]:
        start("200 OK", [])
        yield b""
        inside.set()
        leave.wait(10)

    def quick(environ: Any, start: Any) -> list[bytes]:
        start("200 OK", [])
        return []

    visits = Visits(clock=clock, collector=Collector())  # type: ignore[arg-type]
    request(PerfkitMiddleware(quick, visits=visits))
    assert Collector.idle == []
    perfkit.configure(web={"collect_garbage": True})
    thread = threading.Thread(target=request, args=(PerfkitMiddleware(slow, visits=visits),))
    thread.start()
    assert inside.wait(10)
    request(PerfkitMiddleware(quick, visits=visits))
    leave.set()
    thread.join()
    assert Collector.idle == [False, True]
