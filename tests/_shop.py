"""A Django project in one module: importing it sets Django up for the whole test process."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpRequest, JsonResponse
from django.urls import path

import perfkit

MIDDLEWARE = [
    "perfkit.integrations.django.middleware.PerfkitMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]


def set_up() -> None:
    """Configure Django once for the process."""
    if settings.configured:
        return
    import django

    settings.configure(
        SECRET_KEY="x" * 60,
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=__name__,
        MIDDLEWARE=MIDDLEWARE,
        INSTALLED_APPS=[
            "django.contrib.admin",
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.messages",
            "django.contrib.sessions",
            "perfkit.integrations.django",
        ],
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "APP_DIRS": True,
                "OPTIONS": {
                    "context_processors": [
                        "django.template.context_processors.request",
                        "django.contrib.auth.context_processors.auth",
                        "django.contrib.messages.context_processors.messages",
                    ]
                },
            }
        ],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
        PERFKIT={},
    )
    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)


def ask(request: HttpRequest, number: int) -> JsonResponse:
    answer = perfkit.chat(f"my {number}", model="m", temperature=0)
    return JsonResponse({"cached": answer.cached})


def ask_twice(request: HttpRequest) -> JsonResponse:
    """Make two calls that together cost more than one."""
    costs = [perfkit.chat(f"number {n}", model="m", max_tokens=10).cost for n in range(2)]
    return JsonResponse({"costs": costs})


def broken(_request: HttpRequest) -> JsonResponse:
    raise RuntimeError("view failed")


set_up()

from django.contrib import admin  # noqa: E402 - needs the settings

urlpatterns: list[Any] = [
    path("ask/<int:number>", ask),
    path("twice", ask_twice),
    path("broken", broken),
    path("back/", admin.site.urls),
]
