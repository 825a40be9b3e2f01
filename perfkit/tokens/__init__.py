"""Token counts, prices, budgets, reports and cheaper prompts: `perfkit.optimizer` is the shared TokenOptimizer."""

from __future__ import annotations

from perfkit.tokens.admission import Admission
from perfkit.tokens.budget import Hold
from perfkit.tokens.compression import extractive, llmlingua
from perfkit.tokens.learning import Prediction
from perfkit.tokens.optimizer import TokenOptimizer
from perfkit.tokens.pricing import Price

__all__ = ["Admission", "Hold", "Prediction", "Price", "TokenOptimizer", "extractive", "llmlingua"]
