"""Token counts, prices, usage reports and budgets, all in process: `perfkit.optimizer` is the shared TokenOptimizer."""

from __future__ import annotations

from perfkit.tokens.budget import Hold
from perfkit.tokens.optimizer import TokenOptimizer
from perfkit.tokens.pricing import Price

__all__ = ["Hold", "Price", "TokenOptimizer"]
