"""The adapter with LLMLingua's own class, driven by models of a few kilobytes that know nothing.

It needs packages of 1 GB, which no extra installs: pip install torch llmlingua 'transformers<5'.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from _parts import REPOSITORY

from perfkit.tokens.compression import compress, llmlingua
from perfkit.tokens.estimator import estimate

tiktoken, tokenizers, torch, transformers, lingua = (
    pytest.importorskip(name, reason=f"package {name} is not here; pip install torch llmlingua 'transformers<5'")
    for name in ("tiktoken", "tokenizers", "torch", "transformers", "llmlingua")
)

TEXT = (REPOSITORY / "perfkit/testing/corpus.txt").read_text(encoding="utf-8")[:3000]
QUESTION = "What keeps the answer?"


@pytest.fixture(autouse=True)
def _counted_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have LLMLingua count without a vocabulary, which tiktoken would download."""
    ranks = {bytes([byte]): byte for byte in range(256)}
    encoding = tiktoken.Encoding("bytes", pat_str=r"[\s\S]", mergeable_ranks=ranks, special_tokens={})
    monkeypatch.setattr(tiktoken, "encoding_for_model", lambda _: encoding)
    torch.manual_seed(1)


def causal(directory: Path) -> Any:
    """Return a compressor of the first kind: what a language model finds unlikely stays."""
    byte_level = tokenizers.pre_tokenizers.ByteLevel
    tokens = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokens.pre_tokenizer, tokens.decoder = byte_level(add_prefix_space=False), tokenizers.decoders.ByteLevel()
    alphabet = byte_level.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=400, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet)
    tokens.train_from_iterator([TEXT], trainer)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokens, bos_token="<s>", eos_token="</s>")
    fast.save_pretrained(directory)
    size = {"vocab_size": len(fast), "n_positions": 2048, "n_embd": 16, "n_layer": 1, "n_head": 2}
    config = transformers.GPT2Config(**size, bos_token_id=0, eos_token_id=1)
    transformers.GPT2LMHeadModel(config).save_pretrained(directory)
    return lingua.PromptCompressor(str(directory), device_map="cpu")


def classifying(directory: Path) -> Any:
    """Return a compressor of the second kind: a classifier says which words stay."""
    directory = directory / "bert-base-multilingual-cased"  # LLMLingua reads the kind of tokens in the name
    directory.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted({*TEXT.split(), *TEXT}, key=len)]
    (directory / "vocab.txt").write_text("\n".join(dict.fromkeys(word for word in words if not word.isspace())))
    tokens = transformers.BertTokenizerFast(str(directory / "vocab.txt"), do_lower_case=False)
    tokens.save_pretrained(directory)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.BertConfig(vocab_size=len(tokens), num_labels=2, **size)
    transformers.BertForTokenClassification(config).save_pretrained(directory)
    return lingua.PromptCompressor(str(directory), device_map="cpu", use_llmlingua2=True)


@pytest.mark.parametrize("made", [causal, classifying])
def test_llmlingua_itself_shortens_a_text(made: Any, tmp_path: Path) -> None:
    if made is causal and int(transformers.__version__.partition(".")[0]) > 4:
        pytest.skip("LLMLingua 0.2.2 asks of its language model what transformers 5 no longer gives")
    lossy = llmlingua(made(tmp_path), rate=0.4, question=QUESTION)
    found = compress(TEXT, count=estimate, steps=(), lossy=lossy)
    assert found.steps == ("lossy",)
    assert 0 < len(found.text) < 0.8 * len(TEXT)
    assert found.saved_tokens > 0
    assert QUESTION not in found.text
