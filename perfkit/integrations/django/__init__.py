"""Django: `"perfkit.integrations.django"` in INSTALLED_APPS and `PERFKIT = {}`, nothing else is needed.

The middleware "perfkit.integrations.django.middleware.PerfkitMiddleware" measures requests and gives their calls a
user and a deadline; `manage.py perfkit` runs perfkit's commands; `manage.py check` tells what is set up wrong.
"""

from __future__ import annotations

__all__: list[str] = []
