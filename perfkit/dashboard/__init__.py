"""The dashboard: one page that tells how the application's LLM calls do, and the same as JSON for machines.

It only reads. Who may see it is decided by the framework it is mounted in, or by a bearer token; prompts, answers and
secrets are not in it.
"""

from perfkit.dashboard.panels import SPANS, Panels
from perfkit.dashboard.site import Dashboard, Reply

__all__ = ["SPANS", "Dashboard", "Panels", "Reply"]
