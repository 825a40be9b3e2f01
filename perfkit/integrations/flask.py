"""Flask: `Perfkit(app)` configures perfkit from the app and puts its middleware, commands and dashboard in place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

try:
    from flask import Flask, Response, g, has_request_context, request
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("flask is not installed; pip install 'perfkit[flask]'", name="flask") from error

from perfkit._shared import configure
from perfkit.dashboard import Dashboard
from perfkit.integrations._commands import flask_command
from perfkit.integrations.wsgi import ROUTE, VISIT, PerfkitMiddleware

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Perfkit"]

_KEY = "perfkit"
CLOSED = "The dashboard is closed to this request: Perfkit(app, dashboard=...) takes a callable that says to whom it is"
CLOSED += " open, and machines send the bearer token of [dashboard] token.\n"
OVER = "whose call this is can only be asked inside the request: wrap what streams in flask.stream_with_context(), or"
OVER += " pass user= to the call"


class Perfkit:
    """Measure the requests of Flask apps, give their calls a user, a deadline and a budget, and add `flask perfkit`.

    `app.config["PERFKIT"]` is a mapping of configuration tables, as `perfkit.configure` takes them. All state is in
    `app.extensions["perfkit"]`, so one object may serve several apps; the configuration belongs to the process.

    Args:
        app: the app; None when `init_app` is called later.
        user: returns the id of the user whose request this is, None for none; called, inside the request, only when a
            call needs it: `user=lambda: session.get("user_id")`.
        dashboard: returns whether this request may see the dashboard at /perfkit/; None admits nobody but machines with
            the bearer token of `[dashboard] token`.
    """

    def __init__(
        self,
        app: Flask | None = None,
        *,
        user: Callable[[], Any] | None = None,
        dashboard: Callable[[], bool] | None = None,
    ) -> None:
        for name, given in (("user", user), ("dashboard", dashboard)):
            if given is not None and not callable(given):
                raise TypeError(f"{name} must be a callable, such as lambda: session.get('{name}'), not {given!r}")
        self._user, self._admitted = user, dashboard
        self._dashboard = Dashboard()
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Set up one app.

        Raises:
            ConfigError: `app.config["PERFKIT"]` has an unknown table or key, or a bad value.
            RuntimeError: the app is set up already.
        """
        if _KEY in app.extensions:
            raise RuntimeError(f"the app {app.name!r} has perfkit already")
        settings = app.config.get("PERFKIT")
        configure(settings if settings is not None else {})
        app.before_request(_name_route)  # first: it fails where the app has served a request already
        app.extensions[_KEY], app.extensions[f"{_KEY}.settings"] = self, settings
        app.wsgi_app = PerfkitMiddleware(app.wsgi_app, user=self._whose)  # type: ignore[method-assign]
        app.cli.add_command(flask_command())
        app.add_url_rule("/perfkit/", "perfkit_dashboard", self._show, defaults={"rest": ""})
        app.add_url_rule("/perfkit/<path:rest>", "perfkit_dashboard", self._show)

    def _show(self, rest: str) -> Response:
        machine = self._dashboard.admits(request.headers.get("Authorization"))
        if not machine and not (self._admitted and self._admitted()):
            return Response(CLOSED, 403, {"Content-Type": "text/plain", "Cache-Control": "no-store"})
        reply = self._dashboard.respond(request.method, rest, request.args.to_dict(), person=not machine)
        return Response(reply.body, reply.status, dict(reply.headers))

    def _whose(self, _environ: Any) -> str | None:
        if self._user is None:
            return None
        if not has_request_context():
            raise RuntimeError(OVER)
        if "perfkit_user" not in g:
            user = self._user()
            g.perfkit_user = None if user is None else str(user)
        found: str | None = g.perfkit_user
        return found


def _name_route() -> None:
    route = request.environ[ROUTE] = request.url_rule.rule if request.url_rule is not None else ""
    if route:
        request.environ[VISIT].named(request.method, route)
