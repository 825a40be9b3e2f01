"""What `manage.py check` says of perfkit: each finding has an id and what to do about it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.checks import Error, Info, Tags, Warning, register  # noqa: A004 - Django's own names

from perfkit._shared import current_config
from perfkit.routing import ProviderRouter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.core.checks import CheckMessage

__all__ = ["register_all"]

MIDDLEWARE = "perfkit.integrations.django.middleware.PerfkitMiddleware"
AUTHENTICATION = "django.contrib.auth.middleware.AuthenticationMiddleware"
GZIP = "django.middleware.gzip.GZipMiddleware"

refused: Exception | None = None  # why settings.PERFKIT was not taken


def register_all() -> None:
    """Tell Django of the checks; those for deployment run with `check --deploy`."""
    register(check_settings, Tags.compatibility)
    register(check_middleware, Tags.compatibility)
    register(check_deployment, Tags.security, deploy=True)


def check_settings(**_: Any) -> list[CheckMessage]:
    """E001: settings.PERFKIT cannot be used."""
    if refused is None:
        return []
    hint = "PERFKIT is a dict of tables, as in {'client': {'default_model': 'gpt-4o-mini'}}."
    return [Error(f"settings.PERFKIT: {refused}", hint=hint, id="perfkit.E001")]


def check_middleware(**_: Any) -> list[CheckMessage]:
    """W001, W002: the middleware stands twice, or where it sees too little."""
    listed = list(settings.MIDDLEWARE)
    found = [place for place, name in enumerate(listed) if name == MIDDLEWARE]
    if not found:
        return []
    messages: list[CheckMessage] = []
    if len(found) > 1:
        hint = f"Keep the first {MIDDLEWARE} of MIDDLEWARE."
        messages.append(Warning("every request is measured more than once", hint=hint, id="perfkit.W001"))
    late = [name for name in listed[: found[0]] if name in (AUTHENTICATION, GZIP)]
    if late:
        hint = f"Put {MIDDLEWARE} before {late[0]}, best first of all: it asks for the user only when a call needs it."
        messages.append(Warning("what comes before the middleware is not measured", hint=hint, id="perfkit.W002"))
    return messages


def check_deployment(**_: Any) -> list[CheckMessage]:
    """W003 to W005, I001: no threads, calls of nobody, providers without a key, workers that share nothing."""
    messages: list[CheckMessage] = []
    uwsgi = sys.modules.get("uwsgi")
    if uwsgi is not None and not {"enable-threads", "threads"} & set(getattr(uwsgi, "opt", {})):
        hint = "Start uWSGI with --enable-threads: metrics and upkeep need a background thread."
        messages.append(Warning("uWSGI runs without threads", hint=hint, id="perfkit.W003"))
    if MIDDLEWARE not in settings.MIDDLEWARE:
        hint = f"Add {MIDDLEWARE} as the first line of MIDDLEWARE, or pass user= to each call."
        messages.append(Warning("calls have no user: personal answers are not cached", hint=hint, id="perfkit.W004"))
    messages += _keyless()
    if current_config().table("state").url is None:
        hint = "PERFKIT = {'state': {'url': 'redis://...'}} lets workers share what they can."
        messages.append(Info("each worker has its own cache, budgets and health", hint=hint, id="perfkit.I001"))
    return messages


def _keyless() -> Iterator[CheckMessage]:
    router = ProviderRouter.instance()
    for name in router.list_providers():
        provider = router.get_provider(name)
        if getattr(provider, "lacks_key", False):
            hint = f"Set {provider.options.key_variable} in the environment, or api_key of its table."
            yield Warning(f"the provider {name!r} has no key: its calls fail", hint=hint, id="perfkit.W005")
