"""Writes a small Llama of random weights, in shards, with a tokenizer of its own: FOLDER, by an
engine's interpreter, which has transformers. The same each time.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

VOCABULARY = 4096
SHAPE: dict[str, Any] = {
    "hidden_size": 1536,
    "intermediate_size": 4096,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_key_value_heads": 6,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
}
SHARDS = 8
PROMPTS = 4


def write_tokenizer(folder: Path, draw: random.Random) -> list[str]:
    """Byte pairs of words that are drawn, too. Returns prompts."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(draw.choices(letters, k=draw.randint(2, 7))) for _ in range(2500)]
    lines = [" ".join(draw.choices(words, k=10)) for _ in range(1500)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "</s>", "<pad>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=alphabet
    )
    tokenizer.train_from_iterator(lines, trainer)
    bos, eos, pad = special
    fast: Any = PreTrainedTokenizerFast
    fast(tokenizer_object=tokenizer, bos_token=bos, eos_token=eos, pad_token=pad).save_pretrained(
        folder
    )
    return [line[:48] for line in lines[:PROMPTS]]


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    prompts = write_tokenizer(folder, random.Random(11))
    (folder / "prompts.json").write_text(json.dumps(prompts))
    torch.manual_seed(11)
    config = LlamaConfig(vocab_size=VOCABULARY, bos_token_id=0, eos_token_id=1, **SHAPE)
    model: Any = LlamaForCausalLM(config)
    model.to(torch.bfloat16)
    size_bytes = sum(parameter.nbytes for parameter in model.parameters())
    # A tensor that does not fit begins the next shard, so they are a little smaller than this.
    model.save_pretrained(folder, max_shard_size=int(size_bytes / SHARDS * 1.15))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
