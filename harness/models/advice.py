"""What to do about each fault of a model: one table, from cause to cure.

tests/models/test_advice.py makes every fault, applies its cure, and sees it accepted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from harness.errors import ModelError

Cause = Literal[
    "file for folder", "no folder", "adapter", "adapter beside", "data set", "nested",
    "no checkpoint", "family", "config", "shape", "rope", "quantised", "pickled", "other name",
    "meta", "gguf", "no weights", "shard missing", "index", "layers", "no floats", "two heads",
    "no head", "parameters", "weights", "tensor missing", "not finite", "fp16", "activations",
    "activations of fp16", "activations of adapter", "diverged", "no tokenizer", "tokenizer.model",
    "tokenizer", "tokenizer settings", "pad outside", "no eos", "unknown token", "token outside",
    "closing", "opening", "irregular", "unk is eos"
]  # fmt: skip
"""What is wrong with a model, its tokenizer, or the numbers it computes."""

CONVERT = (
    "python -c \"from transformers import AutoModelForCausalLM as M; M.from_pretrained('FOLDER')"
    ".save_pretrained('FOLDER')\""
)
"""Writes pickled weights of transformers' format as safetensors."""

ADVICE: dict[Cause, str] = {
    "file for folder": "give the folder that it lies in",
    "no folder": "put the checkpoint there (config.json, *.safetensors, tokenizer.json), or "
    "correct the model's path",
    "adapter": "give the model that it was trained on here, and this folder under methods, as "
    "{adapter: FOLDER}",
    "adapter beside": "move the adapter's files to a folder of their own: transformers would put "
    "it on the base",
    "data set": "give a model's folder here; training data go under `data`",
    "nested": "give one of them",
    "no checkpoint": "give a folder in transformers' format, with a config.json",
    "family": "give a model of a supported family",
    "config": "put the model's own config.json there",
    "shape": "correct the model's shape or its path",
    "rope": "put the model's own rope_parameters there",
    "quantised": "give the unquantised checkpoint that it was made from (train.base_quantization "
    "quantises that one's frozen weights as they are loaded)",
    "pickled": f"convert it: {CONVERT}",
    "other name": "rename it to model.safetensors",
    "meta": "give the model's folder in transformers' format",
    "gguf": "give the model's folder in transformers' format, from which it was converted",
    "no weights": "put the model's *.safetensors there",
    "shard missing": "fetch what is missing from where the checkpoint came",
    "index": "give the index that was saved with the weights",
    "layers": "give the config.json that belongs to these weights",
    "no floats": "give the model's weights as floating-point numbers (F32, BF16 or F16)",
    "two heads": "say tie_word_embeddings: false in config.json and in the grid's shape to use "
    "both, or remove the head from the weights to use the embedding",
    "no head": "say tie_word_embeddings: true in config.json and in the grid's shape if the head "
    "is the embedding; else fetch the weights that hold it",
    "parameters": "give a model without them: its config.json asks for parts, such as biases, that "
    "zbench does not know",
    "weights": "give the config.json that belongs to these weights, or the weights of this one",
    "tensor missing": "fetch the weights again, whole, from where the checkpoint came",
    "not finite": "give a checkpoint whose weights are numbers: no setting of the training "
    "mends it",
    "fp16": "set train.precision to bf16 or fp32",
    "activations": "nothing has been trained yet, so that no learning rate mends it: give another "
    "checkpoint, or set train.precision to fp32",
    "activations of fp16": "nothing has been trained yet, so that no learning rate mends it: set "
    "train.precision to bf16 or fp32",
    "activations of adapter": "compare with the base alone (method base): where that is scored, "
    "give the adapter as it was trained for this base model",
    "diverged": "lower the learning rate or set max_gradient_norm",
    "no tokenizer": "add the model's tokenizer.json",
    "tokenizer.model": "add the model's tokenizer.json (transformers 5 converts tokenizer.model "
    "wrongly)",
    "tokenizer": "put the model's own tokenizer.json there",
    "tokenizer settings": "put the model's own tokenizer_config.json there",
    "pad outside": "say pad_token_id: null there, or name a token of the model",
    "no eos": "name the token that ends a text, as eos_token in tokenizer_config.json",
    "unknown token": "name a token of tokenizer.json in tokenizer_config.json",
    "token outside": "give the model's own tokenizer, or the checkpoint whose embedding was "
    "resized for it",
    "closing": "take it out of post_processor in tokenizer.json (transformers 5 does not read "
    "add_eos_token beside a tokenizer.json)",
    "opening": "if that is not meant, let post_processor in tokenizer.json put what bos_token in "
    "tokenizer_config.json names, or name none",
    "irregular": "put the model's own post_processor in tokenizer.json",
    "unk is eos": "name another eos_token in tokenizer_config.json, or another unk_token in "
    "tokenizer.json",
}
"""What cures each cause."""


def fault_line(place: Path | str, cause: Cause, found: str) -> str:
    """One line: where, what is wrong, what to do."""
    return f"{place}: {found}; {ADVICE[cause]}"


def model_error(place: Path | str, cause: Cause, found: str) -> ModelError:
    """The error of a fault."""
    return ModelError(fault_line(place, cause, found))
