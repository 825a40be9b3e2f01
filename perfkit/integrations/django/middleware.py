"""Django's middleware: measures requests by route, and says whose they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from perfkit.integrations._web import Visit, Visits

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest, HttpResponseBase

__all__ = ["PerfkitMiddleware"]

_VISIT = "_perfkit_visit"
_visits = Visits()  # several middleware objects (tests make many) serve one process


class PerfkitMiddleware:
    """Put it first in MIDDLEWARE.

    Each request becomes a value of `http_server_request_duration` (seconds, to the last byte of the reply) with tags:
    method, route ("shop/<int:id>", never the path itself) and status ("2xx"). Calls without `user=` belong to
    the logged-in user, who is looked up only when there is such a call; `PERFKIT["web"]["request_timeout"]` is the
    deadline of all calls together, `PERFKIT["web"]["request_budget"]` what they may cost together (US dollars); the
    error that says it is spent names the request by its X-Request-ID.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        if hasattr(settings, "PERFKIT") and not apps.is_installed("perfkit.integrations.django"):
            raise ImproperlyConfigured(
                "settings.PERFKIT needs 'perfkit.integrations.django' in INSTALLED_APPS to be read"
            )
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Serve one request."""
        visit = _visits.begin(lambda: _user_of(request), lambda: request.META.get("HTTP_X_REQUEST_ID"))
        vars(request)[_VISIT] = visit
        try:
            response = self._get_response(request)
        except BaseException:
            _end(visit, request, "5xx")
            raise
        status = f"{response.status_code // 100}xx"
        response._resource_closers.append(lambda: _end(visit, request, status))  # noqa: SLF001 - what response.close() runs
        return response

    def process_view(self, request: HttpRequest, *_: Any) -> None:
        """Name the request, whose route is known now."""
        visit, match = vars(request).get(_VISIT), request.resolver_match
        if visit is not None and match is not None:
            visit.named(request.method or "", match.route)


def _end(visit: Visit, request: HttpRequest, status: str) -> None:
    match = getattr(request, "resolver_match", None)
    visit.end(method=request.method or "", route=match.route if match is not None else "", status=status)


def _user_of(request: HttpRequest) -> str | None:
    user = getattr(request, "user", None)
    return str(user.pk) if user is not None and user.is_authenticated else None
