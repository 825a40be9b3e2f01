"""The dashboard inside Django's admin, at <admin>/perfkit/, for staff; urls.py stays as it is.

Django imports this module when the admin looks for its models. A site of one's own gets the dashboard from
`add_dashboard(site)`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.http import HttpResponse
from django.urls import path, reverse

from perfkit.dashboard import Dashboard

if TYPE_CHECKING:
    from django.contrib.admin import AdminSite
    from django.http import HttpRequest

__all__ = ["add_dashboard"]

NAME = "perfkit_dashboard"

_dashboard = Dashboard()


def add_dashboard(site: AdminSite) -> None:
    """Give an admin site the dashboard, as `<site>:perfkit_dashboard`, and a line in its index."""
    own_urls, own_list = site.get_urls, site.get_app_list

    def get_urls() -> list[Any]:
        view = _guarded(site)
        return [path("perfkit/", view, name=NAME), path("perfkit/<path:rest>", view), *own_urls()]

    def get_app_list(request: HttpRequest, app_label: str | None = None) -> list[Any]:
        listed: list[Any] = own_list(request, app_label)
        return [*listed, _entry(reverse(f"{site.name}:{NAME}"))] if app_label is None else listed

    site.get_urls, site.get_app_list = get_urls, get_app_list


def _guarded(site: AdminSite) -> Any:
    for_staff = site.admin_view(partial(_view, person=True))

    def view(request: HttpRequest, rest: str = "") -> HttpResponse:
        if _dashboard.admits(request.headers.get("Authorization")):
            return _view(request, rest, person=False)
        reply: HttpResponse = for_staff(request, rest)
        return reply

    return view


def _view(request: HttpRequest, rest: str = "", *, person: bool) -> HttpResponse:
    reply = _dashboard.respond(request.method or "", rest, request.GET.dict(), person=person)
    return HttpResponse(reply.body, status=reply.status, headers=dict(reply.headers))


def _entry(url: str) -> dict[str, Any]:
    dashboard = {"name": "Dashboard", "object_name": "Dashboard", "admin_url": url, "view_only": True, "perms": {}}
    own = {"name": "perfkit", "app_label": "perfkit", "app_url": url, "has_module_perms": True}
    return {**own, "models": [dashboard]}


add_dashboard(admin.site)
