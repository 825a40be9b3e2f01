"""Serve perfkit's tiny model for the other examples, until Ctrl-C: paste the line it prints into another shell.

Run it: python examples/model.py
"""

import threading
from contextlib import suppress

from perfkit.testing import LlamaServer

with LlamaServer() as server, suppress(KeyboardInterrupt):
    print(f"export LLM_BASE_URL={server.base_url}", flush=True)
    threading.Event().wait()
