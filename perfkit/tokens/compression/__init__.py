"""Prompts made shorter: without loss where that can be, and by choice with some."""

from perfkit.tokens.compression.aliases import Aliases
from perfkit.tokens.compression.lossy import extractive, llmlingua
from perfkit.tokens.compression.steps import Compressed, compress

__all__ = ["Aliases", "Compressed", "compress", "extractive", "llmlingua"]
