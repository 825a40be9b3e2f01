"""The wire formats as pure functions: no sockets, no clocks, no state but that of one stream.

A format is one module with `payload` (a ChatRequest as the provider wants it), `reply` (its answer as a `Reply`) and
`Reader` (the same from the events of a stream). What all formats share, failures and waits, is beside them.
"""

from __future__ import annotations

__all__: list[str] = []
