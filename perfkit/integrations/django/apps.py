"""The app's configuration: `settings.PERFKIT` becomes perfkit's, again whenever tests override it."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from perfkit._shared import configure, start_over
from perfkit.config import Config
from perfkit.errors import PerfkitError

__all__ = ["PerfkitConfig"]


class PerfkitConfig(AppConfig):
    """Configures perfkit when Django is ready; no thread, no socket, no file."""

    name = "perfkit.integrations.django"
    label = "perfkit"
    verbose_name = "perfkit"

    def ready(self) -> None:
        """Take `settings.PERFKIT`.

        Raises:
            ImproperlyConfigured: it cannot be used. Nothing starts then: gunicorn and Celery run no checks, and calls
                would be made without the budgets and limits that were meant.
        """
        from perfkit.integrations.django import checks

        checks.register_all()
        setting_changed.connect(_overridden, dispatch_uid="perfkit")
        try:
            configure(getattr(settings, "PERFKIT", {}))
        except (PerfkitError, TypeError) as error:
            raise ImproperlyConfigured(f"settings.PERFKIT: {error}") from error


def _overridden(*, setting: str, value: Any, **_: Any) -> None:
    if setting == "PERFKIT":
        start_over(Config(value if value is not None else {}))
