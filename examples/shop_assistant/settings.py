"""Settings of the shop; what perfkit needs is one line in INSTALLED_APPS, one in MIDDLEWARE, and PERFKIT."""

import os
from pathlib import Path

SECRET_KEY = os.environ.get("SECRET_KEY", "only-for-trying-out")
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
ROOT_URLCONF = "examples.shop_assistant.urls"
WSGI_APPLICATION = "examples.shop_assistant.wsgi.application"
STATIC_URL = "/static/"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("SHOP_DB", Path(__file__).with_name("shop.sqlite3")),
    }
}
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "perfkit.integrations.django",
    "examples.shop_assistant.catalogue",
]
MIDDLEWARE = [
    "perfkit.integrations.django.middleware.PerfkitMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [
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
]
PERFKIT = {
    "providers": {
        "main": {
            "kind": "openai",
            "base_url": os.environ.get("LLM_BASE_URL", "http://127.0.0.1:8080/v1"),
            "api_key": os.environ.get("LLM_API_KEY", "not-needed"),
        }
    },
    "client": {"default_model": os.environ.get("LLM_MODEL", "tiny")},
    "routes": {"describe": {"model": os.environ.get("LLM_MODEL", "tiny"), "cacheable": True, "ttl": 86_400}},
    "tokens": {
        "prices": {"tiny": {"input": 0.15, "output": 0.60}},  # US dollars per million tokens
        "budgets": [{"scope": "global", "limit": 5.0, "period": "day"}],
    },
    "web": {"request_timeout": 20.0},
}
