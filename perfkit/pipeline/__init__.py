"""The way of a call: `perfkit.chat`, `perfkit.stream` and `perfkit.batch`."""

from perfkit.pipeline.client import Client
from perfkit.pipeline.scoping import scope
from perfkit.pipeline.stream import ChatStream

__all__ = ["ChatStream", "Client", "scope"]
