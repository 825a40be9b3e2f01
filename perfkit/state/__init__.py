"""State that processes and hosts share: a Redis or a SQLite file, whose loss never breaks a request.

Rooms that share something ask `StateHub` for its link and catch StateUnavailableError, upon which they go on with what
their own process knows.
"""

from perfkit.state.hub import StateHub
from perfkit.state.redis import RedisLink, Script
from perfkit.state.sqlite import SqliteFile

__all__ = ["RedisLink", "Script", "SqliteFile", "StateHub"]
