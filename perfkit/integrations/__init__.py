"""perfkit's connections behind other people's clients: one module a library, none imported before it is asked for.

A client that is handed perfkit's transport keeps its own interface, exceptions, retries and timeouts; what changes is
what carries the bytes: `perfkit.connections`, or the pool given as `connections=`.
"""

from __future__ import annotations

__all__: list[str] = []
