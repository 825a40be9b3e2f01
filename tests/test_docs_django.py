"""The Django blocks of the documents are a project: built of them alone, and asked as a browser would."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from _parts import REPOSITORY, needs_module
from _servers import environment
from test_docs import blocks

from perfkit.testing import FaultServer

COMPLETED = """
def _with(listed, rest):  # what "..." stands for
    return [name for part in listed for name in (rest if part is ... else [part])]

INSTALLED_APPS = _with(INSTALLED_APPS, [f"django.contrib.{name}" for name in APPS])
MIDDLEWARE = _with(MIDDLEWARE, [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
])
MIGRATION_MODULES = dict.fromkeys(APPS)  # tables are made at once
SECRET_KEY, ALLOWED_HOSTS, ROOT_URLCONF, USE_TZ = "x" * 60, ["testserver"], "urls", True
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
PROCESSORS = ["django.template.context_processors.request", "django.contrib.auth.context_processors.auth",
              "django.contrib.messages.context_processors.messages"]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True,
              "OPTIONS": {"context_processors": PROCESSORS}}]
"""
APPS = ("admin", "auth", "contenttypes", "messages", "sessions")
URLS = """
import views
from django.contrib import admin
from django.urls import path

urlpatterns = [path("ask", views.ask), path("admin/", admin.site.urls)]
"""
VISITED = """
import django
django.setup()
from django.core.management import call_command
call_command("check", fail_level="WARNING")
call_command("migrate", run_syncdb=True, verbosity=0)
from django.contrib.auth.models import User
from django.test import Client

nobody, staff, other = Client(), Client(), Client()
staff.force_login(User.objects.create_superuser("ann"))
other.force_login(User.objects.create_user("bob"))
asked = [who.get("/ask", {"q": "What is a queue?"}).json() for who in (staff, staff, other)]
assert [row["text"] for row in asked] == ["echo: What is a queue?"] * 3, asked
assert [row["cached"] for row in asked] == [None, "exact", None], asked  # to each user what is theirs
assert asked[0]["cost"] > 0 == asked[1]["cost"], asked
assert [who.get("/admin/perfkit/").status_code for who in (nobody, other, staff)] == [302, 302, 200]
import perfkit
routes = perfkit.tracker.get_stats("http_server_request_duration", tags={"route": "ask"})
assert routes["count"] == 3, routes
"""


@pytest.mark.parametrize("name", ["README.md", "docs/getting-started.md"])
def test_the_django_blocks_of_a_document_are_a_project_that_answers(
    name: str, fault: FaultServer, tmp_path: Path
) -> None:
    needs_module("django")
    code = [text for _, text in blocks(REPOSITORY / name, "python")]
    [settings] = [text for text in code if "INSTALLED_APPS = [" in text]
    [views] = [text for text in code if "HttpRequest" in text]
    (tmp_path / "settings.py").write_text(f"{settings}\nAPPS = {APPS}\n{COMPLETED}")
    (tmp_path / "views.py").write_text(views)
    (tmp_path / "urls.py").write_text(URLS)
    env = environment(DJANGO_SETTINGS_MODULE="settings", OPENAI_BASE_URL=fault.base_url, OPENAI_API_KEY="sk-test")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", VISITED],
        env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert fault.stats()["requests"] == 2
