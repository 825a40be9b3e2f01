"""A Django app in one file that asks a model.

Run it: LLM_BASE_URL=https://api.openai.com/v1 LLM_API_KEY=sk-... gunicorn --threads 16 examples.django_app:application
"""

import os

from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, JsonResponse, StreamingHttpResponse
from django.urls import path

import perfkit

settings.configure(
    SECRET_KEY=os.environ.get("SECRET_KEY", "only-for-trying-out"),
    ALLOWED_HOSTS=["127.0.0.1", "localhost"],
    ROOT_URLCONF=__name__,
)
perfkit.configure(
    providers={
        "main": {
            "kind": "openai",
            "base_url": os.environ.get("LLM_BASE_URL", "http://127.0.0.1:8080/v1"),
            "api_key": os.environ.get("LLM_API_KEY", "not-needed"),
        }
    },
    client={"default_model": os.environ.get("LLM_MODEL", "tiny")},
    metrics={"statsd": os.environ.get("STATSD", "127.0.0.1:8125")},
)


@perfkit.profile("retrieve")
def retrieve(question: str) -> str:
    """Stand for the work around the call: look something up, render a template."""
    return f"Answer in one sentence: {question}"


def ask(request: HttpRequest) -> JsonResponse:
    try:
        answer = perfkit.chat(retrieve(request.GET["q"]), temperature=0, max_tokens=32, user=request.GET.get("user"))
    except perfkit.PerfkitError as error:
        return JsonResponse({"error": type(error).__name__, "message": str(error)}, status=503)
    return JsonResponse({"text": answer.text, "cached": answer.cached, "cost": answer.cost})


def stream(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(perfkit.stream(retrieve(request.GET["q"]), max_tokens=32), content_type="text/plain")


def stats(_request: HttpRequest) -> JsonResponse:
    calls = perfkit.tracker.get_stats("agent_response_time")
    return JsonResponse({"calls": calls, "cache": perfkit.cache.stats(), "providers": perfkit.router.health()})


urlpatterns = [path("ask", ask), path("stream", stream), path("stats", stats)]
application = WSGIHandler()
