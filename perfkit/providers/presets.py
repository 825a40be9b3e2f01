"""Providers by name: where they are, which variable holds their key, and how they deviate from the format they speak.

Taken from the providers' own documentation in November 2026. A preset is data only; anything in it can be given to
`create_provider` instead.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PRESETS", "Preset"]

_OPENAI = "perfkit.providers.openai:OpenAIProvider"
_RESPONSES = "perfkit.providers.responses:ResponsesProvider"
_GEMINI = "perfkit.providers.gemini:GeminiProvider"
_OLLAMA = "perfkit.providers.ollama:OllamaProvider"
_ANTHROPIC = "perfkit.providers.anthropic:AnthropicProvider"
_GPT = ("gpt-", "chatgpt-", "o1", "o3", "o4", "ft:", "computer-use", "codex")
_MISTRAL = ("mistral", "ministral", "magistral", "codestral", "devstral", "pixtral", "open-mi", "voxtral", "ft:")
_NEW_NAME = {"max_tokens_field": "max_completion_tokens"}  # max_tokens is deprecated there, and refused by some models


@dataclass(frozen=True, slots=True)
class Preset:
    """One provider.

    Attributes:
        base_url: with the version prefix; empty where every customer has an address of their own.
        key_variable: environment variable that holds the key.
        options: of the provider's class; deviations from its format.
        provider: "module:class" that speaks its format.
        families: beginnings of the names of the vendor's own models; none where many vendors' models are served.
        address: another environment variable of the address, the one the vendor's own SDK reads.
        suffix: what such an address lacks at its end.
    """

    base_url: str
    key_variable: str
    options: Mapping[str, Any] = field(default_factory=dict)
    provider: str = _OPENAI
    families: tuple[str, ...] = ()
    address: str = ""
    suffix: str = ""

    @property
    def is_local(self) -> bool:
        """A server of one's own, which mostly wants no key."""
        return self.base_url.startswith("http://")

    def elsewhere(self) -> str | None:
        """Return the address the environment gives, for example in OPENAI_BASE_URL, if any."""
        variable = self.key_variable.removesuffix("_API_KEY") + "_BASE_URL"
        if variable != self.address and os.environ.get(variable):
            return os.environ[variable]
        url = os.environ.get(self.address, "").rstrip("/")
        if not url:
            return None
        url = url if "://" in url else f"http://{url}"
        return url if url.endswith(self.suffix) else url + self.suffix

    def settings(self, *, at_home: bool) -> dict[str, Any]:
        """Return what a provider of this kind is made with; `at_home` means at the vendor's own address."""
        required = at_home and not self.is_local
        families = {"families": self.families} if at_home else {}
        return {"key_variable": self.key_variable, "key_required": required, **families, **self.options}


PRESETS = {
    "anthropic": Preset(
        "https://api.anthropic.com/v1",
        "ANTHROPIC_API_KEY",
        provider=_ANTHROPIC,
        families=("claude",),
        address="ANTHROPIC_BASE_URL",
        suffix="/v1",
    ),
    "openai": Preset("https://api.openai.com/v1", "OPENAI_API_KEY", families=_GPT),
    "openai_responses": Preset("https://api.openai.com/v1", "OPENAI_API_KEY", provider=_RESPONSES, families=_GPT),
    "gemini": Preset(
        "https://generativelanguage.googleapis.com/v1beta",
        "GEMINI_API_KEY",
        provider=_GEMINI,
        families=("gemini", "gemma", "models/", "tunedModels/"),
        address="GOOGLE_GEMINI_BASE_URL",
        suffix="/v1beta",
    ),
    "azure": Preset(
        "", "AZURE_OPENAI_API_KEY", {"key_header": "api-key"}, address="AZURE_OPENAI_ENDPOINT", suffix="/openai/v1"
    ),
    "cerebras": Preset("https://api.cerebras.ai/v1", "CEREBRAS_API_KEY", _NEW_NAME),
    "deepseek": Preset("https://api.deepseek.com/v1", "DEEPSEEK_API_KEY", families=("deepseek",)),
    "fireworks": Preset("https://api.fireworks.ai/inference/v1", "FIREWORKS_API_KEY"),
    "groq": Preset("https://api.groq.com/openai/v1", "GROQ_API_KEY", _NEW_NAME),
    # Mistral refuses fields it does not know with 422, stream_options among them, and sends usage anyway.
    "mistral": Preset("https://api.mistral.ai/v1", "MISTRAL_API_KEY", {"include_usage": False}, families=_MISTRAL),
    "openrouter": Preset("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    "together": Preset("https://api.together.xyz/v1", "TOGETHER_API_KEY"),
    "xai": Preset("https://api.x.ai/v1", "XAI_API_KEY", _NEW_NAME, families=("grok",)),
    "ollama": Preset(
        "http://127.0.0.1:11434/api", "OLLAMA_API_KEY", provider=_OLLAMA, address="OLLAMA_HOST", suffix="/api"
    ),
    "llamacpp": Preset("http://127.0.0.1:8080/v1", "LLAMA_API_KEY"),
    "lmstudio": Preset("http://127.0.0.1:1234/v1", "LM_API_TOKEN"),
    "vllm": Preset("http://127.0.0.1:8000/v1", "VLLM_API_KEY"),
}
