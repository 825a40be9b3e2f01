"""The anthropic SDK over perfkit's pool: `Anthropic(http_client=perfkit.integrations.anthropic.http_client())`."""

from __future__ import annotations

from functools import partial

from perfkit.integrations._httpx import client_of_sdk

__all__ = ["http_client"]

http_client = partial(client_of_sdk, "anthropic")
