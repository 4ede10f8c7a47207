"""Types of the settings that transformers refuses, or fails on, when a checkpoint is loaded.

So that `plan` says them, which does not import transformers. A test holds each against the
installed transformers; what is not here is still refused in one line when it is loaded.
"""

from __future__ import annotations

import codecs
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.errors import printable
from harness.models.advice import fault_line
from harness.readers.files import Unreadable, read_bytes, read_text
from harness.readers.json_files import read_json_object

ACTIVATIONS = frozenset(
    {
        *("gelu", "gelu_10", "gelu_accurate", "gelu_fast", "gelu_new", "gelu_python"),
        *("gelu_python_tanh", "gelu_pytorch_tanh", "hardswish", "laplace", "leaky_relu", "linear"),
        *("mish", "prelu", "quick_gelu", "relu", "relu2", "relu6", "sigmoid", "silu"),
        *("sqrtsoftplus", "swish", "tanh", "xielu"),
    }
)
"""Names of transformers' activations."""
WHOLE = (
    *("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads"),
    *("vocab_size", "max_position_embeddings"),
)
WHOLE_OR_NONE = (
    *("num_key_value_heads", "head_dim", "bos_token_id", "pad_token_id", "pretraining_tp"),
)
REAL = ("rms_norm_eps", "layer_norm_eps", "initializer_range")
TEXT = ("hidden_act", "hidden_activation")
FLAGS = ("use_cache", "attention_bias", "mlp_bias")
DROPOUTS = ("attention_dropout", "hidden_dropout", "embd_pdrop", "resid_pdrop")
BIASES = ("attention_bias", "mlp_bias")
NOT_SETTINGS = (
    *("self", "tokenizer_object", "tokenizer_truncation", "tokenizer_padding", "post_processor"),
)
"""Arguments of transformers' tokenizer that are no settings of a file."""


def config_faults(file: Path, settings: Mapping[str, Any]) -> Iterator[str]:
    """Yields the values of config.json that transformers does not take."""
    wrong = [name for name in WHOLE if name in settings and not _is_whole(settings[name])]
    wrong += [n for n in WHOLE_OR_NONE if settings.get(n) is not None and not _is_int(settings[n])]
    wrong += [name for name in REAL if name in settings and not _is_real(settings[name])]
    wrong += [n for n in FLAGS if settings.get(n) is not None and type(settings[n]) is not bool]
    wrong += [n for n in DROPOUTS if settings.get(n) is not None and not _is_share(settings[n])]
    wrong += ["id2label"] if not isinstance(settings.get("id2label") or {}, Mapping) else []
    wrong += [n for n in TEXT if settings.get(n) is not None and settings[n] not in ACTIVATIONS]
    tied = settings.get("tie_word_embeddings")
    wrong += ["tie_word_embeddings"] if tied is not None and type(tied) is not bool else []
    ends = settings.get("eos_token_id")
    listed = ends if isinstance(ends, list) else [ends]
    wrong += [name for name in ("text_config", "vision_config") if settings.get(name) is not None]
    wrong += ["eos_token_id"] if ends is not None and not all(map(_is_int, listed)) else []
    if wrong:
        shown = printable(f"{settings[wrong[0]]!r:.40}")
        yield fault_line(file, "config", f"{wrong[0]} is {shown}, which transformers does not take")
    yield from _unmarked(file)
    # GPT-NeoX has biases, which its shape counts.
    due = settings.get("model_type") == "gpt_neox"
    for name in BIASES:
        if isinstance(settings.get(name), bool) and settings[name] != due:
            said = f"{name} is {str(settings[name]).lower()}, which zbench does not count"
            yield fault_line(file, "parameters", said)
    vocab_size, pad = settings.get("vocab_size"), settings.get("pad_token_id")
    if not (isinstance(pad, int) and isinstance(vocab_size, int)):
        return
    if pad not in range(-vocab_size, vocab_size):
        found = f"pad_token_id is {pad}, but the model has {vocab_size} tokens"
        yield fault_line(file, "pad outside", found)


def _is_int(value: Any) -> bool:
    return type(value) is int


def _is_real(value: Any) -> bool:
    return type(value) is float and math.isfinite(value)


def _is_share(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1


def _is_whole(value: Any) -> bool:
    return type(value) is int and value > 0


def _unmarked(file: Path) -> Iterator[str]:
    """Yields a fault where a JSON file begins with a byte order mark, as some editors write."""
    if read_bytes(file).startswith(codecs.BOM_UTF8):
        found = "begins with a byte order mark, which transformers does not take"
        yield str(Unreadable(file, "content", found, "store it as UTF-8 without one"))


def tokenizer_faults(folder: Path, config: Mapping[str, Any], text: str) -> Iterator[str]:
    """Yields what transformers does not take of a tokenizer's files beside its special tokens.

    Args:
        config: of tokenizer_config.json.
        text: of tokenizer.json.
    """
    file = folder / "tokenizer_config.json"
    wrong = [
        key for key, value in config.items() if key.endswith("_token") and not _is_token(value, key)
    ]
    wrong += [key for key in NOT_SETTINGS if config.get(key) is not None]
    for key, well in (
        ("extra_special_tokens", _are_tokens),
        ("additional_special_tokens", _are_tokens),
        ("added_tokens_decoder", _is_decoder),
        ("model_max_length", lambda value: type(value) in (int, float)),
        ("padding_side", lambda value: value in ("left", "right")),
        ("truncation_side", lambda value: value in ("left", "right")),
    ):
        if config.get(key) is not None and not well(config[key]):
            wrong.append(key)
    if wrong:
        shown = printable(f"{config[wrong[0]]!r:.40}")
        said = f"{wrong[0]} is {shown}, which transformers does not take"
        yield fault_line(file, "tokenizer settings", said)
    if "added_tokens_decoder" not in config and '"added_tokens"' not in text:
        yield fault_line(folder / "tokenizer.json", "tokenizer", "has no added_tokens")
    added = folder / "added_tokens.json"
    read = added.exists() and "added_tokens_decoder" not in config
    if read and not all(map(_is_int, read_json_object(added).values())):
        yield str(Unreadable(added, "content", "holds other than numbers of tokens"))
    if (folder / "chat_template.jinja").exists():
        read_text(folder / "chat_template.jinja")
    for one in (file, folder / "tokenizer.json"):
        if one.exists():
            yield from _unmarked(one)


def _is_token(value: Any, key: str) -> bool:
    """Whether it is a special token, or a setting such as add_bos_token."""
    if key.startswith("add_") or value is None or isinstance(value, str):
        return True
    marked = isinstance(value, Mapping) and value.get("__type") == "AddedToken"
    return marked and isinstance(value.get("content"), str)


def _are_tokens(value: Any) -> bool:
    values = value.values() if isinstance(value, Mapping) else value
    return isinstance(value, Mapping | list) and all(_is_token(one, "") for one in values)


def _is_decoder(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        str(key).isdigit() and isinstance(one, Mapping) and isinstance(one.get("content"), str)
        for key, one in value.items()
    )
