"""What is known of single providers' connections, as data: settings for a host that `[connections]` leaves as they are.

A setting of the table that differs from its default holds for all hosts, these too; a row of `hosts` wins over both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PRESETS"]

# Sizes are those of the AgentiCraft guide: the most connections, and how many of them stay when traffic ebbs.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "api.openai.com": {"maxsize": 100, "max_idle": 20},
    "api.anthropic.com": {"maxsize": 50, "max_idle": 10},
}
