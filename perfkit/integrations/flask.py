"""Flask: `Perfkit(app)` configures perfkit from the app and puts its middleware, commands and dashboard in place."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

try:
    from flask import Blueprint, Flask, Response, current_app, g, has_request_context, request
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("flask is not installed; pip install 'perfkit[flask]'", name="flask") from error

from perfkit._shared import configure, current_config
from perfkit.dashboard import Dashboard
from perfkit.integrations._commands import flask_command
from perfkit.integrations.wsgi import ROUTE, VISIT, PerfkitMiddleware

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Perfkit"]

log = logging.getLogger("perfkit.integrations.flask")
_KEY = "perfkit"
_SETTINGS = "perfkit.settings"
CLOSED = "The dashboard is closed to this request: Perfkit(app, dashboard=...) takes a callable that says to whom it is"
CLOSED += " open, and machines send the bearer token of [dashboard] token.\n"
OVER = "whose call this is can only be asked inside the request: wrap what streams in flask.stream_with_context(), or"
OVER += " pass user= to the call"


class Perfkit:
    """Measure the requests of Flask apps, give their calls a user, a deadline and a budget, and add `flask perfkit`.

    `app.config["PERFKIT"]` is a mapping of configuration tables, as `perfkit.configure` takes them. All state is in
    `app.extensions`, so one object may serve several apps. The configuration belongs to the process: where an app
    changes what is configured already, a line in the log names the keys. Only `[dashboard] token` is the app's own.

    The dashboard is the blueprint "perfkit", its page the endpoint "perfkit.dashboard": a `before_request` that asks
    for a login lets its guests through where `request.blueprint == "perfkit"`.

    Args:
        app: the app; None when `init_app` is called later.
        user: returns the id of the user whose request this is, None for none; called, inside the request, only when a
            call needs it: `user=lambda: session.get("user_id")`.
        dashboard: returns whether this request may see the dashboard; None admits nobody but machines with the bearer
            token of `[dashboard] token`.
        url_prefix: the path of the dashboard.
    """

    def __init__(
        self,
        app: Flask | None = None,
        *,
        user: Callable[[], Any] | None = None,
        dashboard: Callable[[], bool] | None = None,
        url_prefix: str = "/perfkit",
    ) -> None:
        for name, given in (("user", user), ("dashboard", dashboard)):
            if given is not None and not callable(given):
                raise TypeError(f"{name} must be a callable, such as lambda: session.get('{name}'), not {given!r}")
        self._user, self._admitted, self._prefix = user, dashboard, url_prefix
        self._dashboard = Dashboard()
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Set up one app.

        Raises:
            ConfigError: `app.config["PERFKIT"]` has an unknown table or key, or a bad value.
            RuntimeError: the app is set up already.
            ValueError: the app has another blueprint "perfkit", or `url_prefix` does not begin with a slash.
        """
        if _KEY in app.extensions:
            raise RuntimeError(f"the app {app.name!r} has perfkit already")
        settings = app.config.get("PERFKIT")
        _configure(app, settings if settings is not None else {})
        app.register_blueprint(self._blueprint())  # first: it fails where the app has served a request already
        app.before_request(_name_route)
        app.extensions[_KEY], app.extensions[_SETTINGS] = self, settings
        app.wsgi_app = PerfkitMiddleware(app.wsgi_app, user=self._whose)  # type: ignore[method-assign]
        app.cli.add_command(flask_command())

    def _blueprint(self) -> Blueprint:
        site = Blueprint(_KEY, __name__, url_prefix=self._prefix)
        site.add_url_rule("/", "dashboard", self._show, defaults={"rest": ""})
        site.add_url_rule("/<path:rest>", "dashboard", self._show)
        return site

    def _show(self, rest: str) -> Response:
        own = _token(current_app.extensions[_SETTINGS])
        machine = self._dashboard.admits(request.headers.get("Authorization"), token=own)
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


def _configure(app: Flask, settings: Any) -> None:
    before = current_config().arguments
    configure(settings)
    after = current_config().arguments
    keys = [f"{name}.{key}" for name, table in before.items() for key in table if after[name][key] != table[key]]
    changed = ", ".join(key for key in keys if key != "dashboard.token")
    if changed:
        log.warning("the app %r changes for all apps of this process what was configured before: %s", app.name, changed)


def _token(settings: Any) -> str | None:
    table = settings.get("dashboard") if isinstance(settings, Mapping) else None
    token: str | None = table.get("token") if table is not None else None
    return token


def _name_route() -> None:
    route = request.environ[ROUTE] = request.url_rule.rule if request.url_rule is not None else ""
    visit = request.environ.get(VISIT)  # a request context made by hand has not come through the middleware
    if route and visit is not None:
        visit.named(request.method, route)
