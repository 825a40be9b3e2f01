"""Plain WSGI: a middleware for any application, under Flask and without a framework."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perfkit.integrations._web import Visit, Visits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["ROUTE", "VISIT", "PerfkitMiddleware"]

FILE = "wsgi.file_wrapper"
VISIT = "perfkit.visit"  # in the environ: the request, to be `named` once its route is known
ROUTE = "perfkit.route"  # in the environ: what the application calls the path; an unknown path has no name


class PerfkitMiddleware:
    """Measure every request, to the last byte of its reply, and give its calls a user, a deadline and a budget.

    The metric is `http_server_request_duration` (seconds) with the tags method, status (of 100, as "2xx") and route:
    `environ["perfkit.route"]` where the application sets it, "" otherwise. The deadline is `[web] request_timeout`,
    the budget `[web] request_budget`; the error that says it is spent names the request by its X-Request-ID.

    Args:
        app: the application.
        user: returns the user of an environ, None for none; called only when a call needs it.
        visits: the requests; None counts its own.

    Raises:
        TypeError: `user` is no callable.
    """

    def __init__(
        self,
        app: WSGIApplication,
        *,
        user: Callable[[WSGIEnvironment], str | None] | None = None,
        visits: Visits | None = None,
    ) -> None:
        if user is not None and not callable(user):
            raise TypeError(
                f"user must be a callable, such as lambda environ: environ.get('REMOTE_USER'), not {user!r}"
            )
        self._app, self._user = app, user
        self._visits = visits if visits is not None else Visits()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        user = self._user
        visit = environ[VISIT] = self._visits.begin(
            None if user is None else lambda: user(environ), lambda: environ.get("HTTP_X_REQUEST_ID")
        )
        reply = _Reply(visit, environ)
        file = environ.get(FILE, ())
        if not isinstance(file, type | tuple):  # uWSGI has a function there: only its results tell what is a file
            reply.make_file, environ[FILE] = file, reply.note_file

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
            reply.status = status[:1] + "xx"
            return start_response(status, headers, exc_info) if exc_info else start_response(status, headers)

        try:
            body: Iterable[bytes] = self._app(environ, start)
        except BaseException:
            reply.end()
            raise
        if body is reply.file or (isinstance(file, type) and isinstance(body, file)):
            reply.end()  # the server sends the file itself, if nothing is wrapped around it
            return body
        reply.body = body
        return reply


class _Reply:
    """The body of a reply; closing it ends the request."""

    def __init__(self, visit: Visit, environ: WSGIEnvironment) -> None:
        self._visit: Visit | None = visit
        self._environ = environ
        self.status = "5xx"  # until the application says better
        self.body: Iterable[bytes] = ()
        self.make_file: Callable[..., Any] | None = None
        self.file: Any = self  # what it has made; no body is this reply

    def note_file(self, *given: Any) -> Any:
        """Make a file that the server sends, and remember it."""
        assert self.make_file is not None
        self.file = self.make_file(*given)
        return self.file

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.body)

    def close(self) -> None:
        """Close the body; servers call this whatever happens (PEP 3333)."""
        try:
            if hasattr(self.body, "close"):
                self.body.close()
        finally:
            self.end()

    def end(self) -> None:
        """End the request, once."""
        visit, self._visit = self._visit, None
        if visit is not None:
            method, route = self._environ.get("REQUEST_METHOD", ""), self._environ.get(ROUTE, "")
            visit.end(method=method, route=route, status=self.status)
