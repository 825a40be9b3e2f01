"""The openai SDK over perfkit's pool: `OpenAI(http_client=perfkit.integrations.openai.http_client())`."""

from __future__ import annotations

from functools import partial

from perfkit.integrations._httpx import client_of_sdk

__all__ = ["http_client"]

http_client = partial(client_of_sdk, "openai")
