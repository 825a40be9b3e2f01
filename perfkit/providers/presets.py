"""Providers by name: where they are, which variable holds their key, and how they deviate from the format they speak.

Taken from the providers' own documentation in November 2026. A preset is data only; anything in it can be given to
`create_provider` instead.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PRESETS", "Preset"]

_OPENAI = "perfkit.providers.openai:OpenAIProvider"
_ANTHROPIC = "perfkit.providers.anthropic:AnthropicProvider"
_NEW_NAME = {"max_tokens_field": "max_completion_tokens"}  # max_tokens is deprecated there, and refused by some models


@dataclass(frozen=True, slots=True)
class Preset:
    """One provider.

    Attributes:
        base_url: with the version prefix.
        key_variable: environment variable that holds the key.
        options: of the provider's class; deviations from its format.
        provider: "module:class" that speaks its format.
    """

    base_url: str
    key_variable: str
    options: Mapping[str, Any] = field(default_factory=dict)
    provider: str = _OPENAI

    @property
    def is_local(self) -> bool:
        """A server of one's own, which mostly wants no key."""
        return self.base_url.startswith("http://")


PRESETS = {
    "anthropic": Preset("https://api.anthropic.com/v1", "ANTHROPIC_API_KEY", provider=_ANTHROPIC),
    "openai": Preset("https://api.openai.com/v1", "OPENAI_API_KEY"),
    "cerebras": Preset("https://api.cerebras.ai/v1", "CEREBRAS_API_KEY", _NEW_NAME),
    "deepseek": Preset("https://api.deepseek.com/v1", "DEEPSEEK_API_KEY"),
    "fireworks": Preset("https://api.fireworks.ai/inference/v1", "FIREWORKS_API_KEY"),
    "groq": Preset("https://api.groq.com/openai/v1", "GROQ_API_KEY", _NEW_NAME),
    # Mistral refuses fields it does not know with 422, stream_options among them, and sends usage anyway.
    "mistral": Preset("https://api.mistral.ai/v1", "MISTRAL_API_KEY", {"include_usage": False}),
    "openrouter": Preset("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    "together": Preset("https://api.together.xyz/v1", "TOGETHER_API_KEY"),
    "xai": Preset("https://api.x.ai/v1", "XAI_API_KEY", _NEW_NAME),
    "llamacpp": Preset("http://127.0.0.1:8080/v1", "LLAMA_API_KEY"),
    "lmstudio": Preset("http://127.0.0.1:1234/v1", "LM_API_TOKEN"),
    "vllm": Preset("http://127.0.0.1:8000/v1", "VLLM_API_KEY"),
}
