"""What `manage.py check` says of perfkit: each finding has an id and what to do about it."""

from __future__ import annotations

import ast
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.conf import settings
from django.core.checks import Error, Info, Tags, Warning, register  # noqa: A004 - Django's own names
from django.http import HttpRequest

from perfkit._registry import load
from perfkit._shared import current_config
from perfkit.errors import PerfkitError
from perfkit.pipeline import Client
from perfkit.routing import ProviderRouter
from perfkit.state import StateHub

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.core.checks import CheckMessage

__all__ = ["register_all"]

MIDDLEWARE = "perfkit.integrations.django.middleware.PerfkitMiddleware"
WSGI = "perfkit.integrations.wsgi.PerfkitMiddleware"
AUTHENTICATION = "django.contrib.auth.middleware.AuthenticationMiddleware"
GZIP = "django.middleware.gzip.GZipMiddleware"
DASHBOARD = "perfkit_dashboard"  # the name of its URL in an admin site
DOCTOR = "perfkit.doctor.server"  # looks at the same; imported when asked, for ssl and urllib3 come with it
SHORT = 16  # characters; a token of fewer can be guessed


def register_all() -> None:
    """Tell Django of the checks; those for deployment run with `check --deploy`."""
    register(check_settings, Tags.compatibility)
    register(check_middleware, Tags.compatibility)
    register(check_deployment, Tags.security, deploy=True)


def check_settings(**_: Any) -> list[CheckMessage]:
    """E001: settings.PERFKIT names what there is not: a strategy, a provider, a store."""
    try:
        Client.instance(), StateHub.instance()  # such names are looked up when the parts are made
    except PerfkitError as error:
        hint = "Calls will fail with this error until PERFKIT, the environment or perfkit.toml is mended."
        return [Error(f"settings.PERFKIT: {error}", hint=hint, id="perfkit.E001")]
    return []


def check_middleware(**_: Any) -> list[CheckMessage]:
    """E002, W001, W002: the middleware is another's, stands twice, or where it sees too little."""
    listed = list(settings.MIDDLEWARE)
    if WSGI in listed:
        hint = f"Put {MIDDLEWARE} into MIDDLEWARE; the other wraps whole WSGI applications."
        return [Error(f"{WSGI} is no middleware of Django's", hint=hint, id="perfkit.E002")]
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
    """W003 to W008, I001 to I003: threads, forks, calls of nobody, keys, the dashboard, what is not shared."""
    if check_settings():
        return []
    return [*_uwsgi(), *_nobody(), *_keyless(), *_open(), *_apart()]


def _options() -> Any:
    """Return uWSGI's options: of the process this runs in, else of uwsgi.ini, where that can be read."""
    server = load(DOCTOR)
    with suppress(OSError):
        return server.options_of(server.INI)
    return None


def _uwsgi() -> Iterator[CheckMessage]:
    for finding in load(DOCTOR).uwsgi(_options()):
        said, hint = f"uWSGI: {finding.found}", f"{finding.why}. Give it {finding.do}."
        if finding.check == "uwsgi_threads":
            yield Warning(said, hint=hint, id="perfkit.W003")
        elif finding.check == "uwsgi_fork":
            yield Info(said, hint=hint, id="perfkit.I003")


def _nobody() -> Iterator[CheckMessage]:
    if MIDDLEWARE not in settings.MIDDLEWARE:
        hint = f"Add {MIDDLEWARE} as the first line of MIDDLEWARE, or pass user= to each call."
        yield Warning(
            "calls have no user: answers are shared unless their question is told to be personal by its words",
            hint=hint,
            id="perfkit.W004",
        )


def _keyless() -> Iterator[CheckMessage]:
    router = ProviderRouter.instance()
    for name in router.list_providers():
        provider = router.get_provider(name)
        if getattr(provider, "lacks_key", False):
            hint = f"Set {provider.options.key_variable} in the environment, or api_key of its table."
            yield Warning(f"the provider {name!r} has no key: its calls fail", hint=hint, id="perfkit.W005")


def _open() -> Iterator[CheckMessage]:
    token = current_config().table("dashboard").token
    if token and len(token) < SHORT:
        hint = "Make a longer one: python -c 'import secrets; print(secrets.token_urlsafe())'"
        yield Warning(
            f"the dashboard's token has {len(token)} characters and can be guessed", hint=hint, id="perfkit.W006"
        )
    for name in _open_sites() if apps.is_installed("django.contrib.admin") else ():
        hint = "Let has_permission() of the site admit staff only: the dashboard asks it."
        yield Warning(f"the admin site {name!r} shows the dashboard to everybody", hint=hint, id="perfkit.W007")


def _open_sites() -> Iterator[str]:
    """Give the admin sites whose dashboard somebody sees who has not logged in."""
    from django.contrib.admin.sites import all_sites
    from django.contrib.auth.models import AnonymousUser

    request = HttpRequest()
    request.user = AnonymousUser()
    for site in all_sites:
        with suppress(Exception):  # one that wants more of a request than there is here is not open to all
            if site.has_permission(request) and any(one.name == DASHBOARD for one in site.get_urls()):
                yield site.name


def _apart() -> Iterator[CheckMessage]:
    if current_config().table("state").url is None:
        hint = "PERFKIT = {'state': {'url': 'redis://...'}} lets workers share what they can."
        yield Info("each worker has its own budgets, limits and health", hint=hint, id="perfkit.I001")
    alone, workers = _own_cache(), _workers()
    if alone:
        hint = "PERFKIT = {'cache': {'backend': 'redis'}}, or 'django' for CACHES, lets workers share answers."
        if workers > 1:
            yield Warning(f"{workers} workers, and {alone}", hint=hint, id="perfkit.W008")
        else:
            unseen = " What the command line of a server asks for is not seen from here."
            yield Info(f"with several workers {alone}", hint=hint + unseen, id="perfkit.I002")


def _own_cache() -> str:
    """Return why answers stay in the process, "" where they do not."""
    kept = current_config().table("cache")
    if kept.policy == "never":
        return ""
    if kept.backend == "memory":
        return "each has a cache of its own"
    backend = settings.CACHES.get(kept.alias, {}).get("BACKEND", "") if kept.backend == "django" else ""
    name = backend.rpartition(".")[2]
    return f"CACHES[{kept.alias!r}] is a {name}, of one process" if name in ("LocMemCache", "DummyCache") else ""


def _workers() -> int:
    """Return the number of workers that the environment, uWSGI's options or gunicorn.conf.py tell of, else 1."""
    told = _options() or {}
    given = re.search(r"(?:-w|--workers)[ =]?(\d+)", os.environ.get("GUNICORN_CMD_ARGS", ""))
    found = (told.get("processes"), told.get("workers"), os.environ.get("WEB_CONCURRENCY"), given and given[1])
    return max([_gunicorn(), *(int(number) for number in found if number and number.isdigit())])


def _gunicorn() -> int:
    """Return the workers of gunicorn.conf.py in the working directory, which is read and never run; else 1."""
    number = 1
    with suppress(OSError, SyntaxError, ValueError):
        for line in ast.parse(Path("gunicorn.conf.py").read_bytes()).body:
            match line:
                case ast.Assign(targets=[ast.Name("workers")], value=ast.Constant(int(told))):
                    number = told
    return number
