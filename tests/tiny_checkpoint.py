"""A tiny checkpoint folder in transformers' format, for tests that load one."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from harness.checkpoint import shape_of
from harness.grid import ModelSpec
from tests.methods.tiny_models import VOCABULARY, tiny_model


def write_checkpoint(
    folder: Path, *, max_shard_size: str = "1GB", model: PreTrainedModel | None = None
) -> ModelSpec:
    """Writes config.json, the weights and a word-level tokenizer; returns what describes them."""
    model = tiny_model() if model is None else model
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    special = ["<pad>", "<s>", "</s>", "<unk>"]
    words = special + [f"word{index}" for index in range(VOCABULARY - len(special))]
    vocabulary = {word: index for index, word in enumerate(words)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    tokenizer.save_pretrained(folder)
    return ModelSpec(path=str(folder), shape=shape_of(model.config))


def edit_json(file: Path, **changes: object) -> None:
    """Changes values of a JSON file; None removes a key."""
    content = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
