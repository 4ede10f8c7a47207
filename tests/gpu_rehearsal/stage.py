"""What a rehearsal plays with: LLaMA's shapes on the card that is not there, and real data."""

from __future__ import annotations

from tests.gpu_rehearsal import before_torch  # noqa: F401

# isort: split

import contextlib
import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from harness.data.instructions import Example, epoch_batches, tokenize
from harness.data.sets import choose, read_instructions
from harness.data.spec import DataSpec
from harness.methods import METHODS
from harness.models.shape import ModelShape
from harness.models.tokenizer_files import load_tokenizer
from harness.training.method_statistics import HookState, MethodStatistics
from harness.training.spec import TrainSpec

SIZES = {
    "7b": {
        "num_hidden_layers": 32,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_attention_heads": 32,
    },
    "13b": {
        "num_hidden_layers": 40,
        "hidden_size": 5120,
        "intermediate_size": 13824,
        "num_attention_heads": 40,
    },
    "tiny": {
        "num_hidden_layers": 4,
        "hidden_size": 256,
        "intermediate_size": 688,
        "num_attention_heads": 4,
    },
}
"""LLaMA's sizes (Touvron et al. 2023, table 2), and one to try things with."""
VOCABULARY = 32000
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def data_root() -> Path:
    """The folder of real data sets and the LLaMA tokenizer.

    Raises:
        SystemExit: the environment does not name it.
    """
    root = os.environ.get("ZBENCH_DATA_ROOT")
    if root is None:
        raise SystemExit("ZBENCH_DATA_ROOT is not set: it names the folder of real data sets")
    return Path(root)


def shape_of(size: str, layers: int | None = None) -> ModelShape:
    """A LLaMA's shape, perhaps with fewer layers."""
    sizes = SIZES[size] | ({"num_hidden_layers": layers} if layers else {})
    return ModelShape(**sizes, vocab_size=VOCABULARY)


@functools.cache
def tokenizer() -> Any:
    """LLaMA's tokenizer."""
    return load_tokenizer(data_root() / "llama_tokenizer", VOCABULARY)


def base_model(shape: ModelShape, precision: str, device: str = "cuda") -> Any:
    """A LLaMA as `load_base` leaves it on a card; no weights are read."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = shape.model_dump(exclude={"model_type", "head_dim"}, exclude_none=True)
    config = LlamaConfig(
        **sizes,
        max_position_embeddings=2048,
        rms_norm_eps=1e-6,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=None,
    )
    config._attn_implementation = "sdpa"
    before = torch.get_default_dtype()
    torch.set_default_dtype(DTYPES[precision])
    try:
        with torch.device(device), _without_first_weights():
            return LlamaForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def _without_first_weights() -> Iterator[None]:
    """Draws no first weights, which a checkpoint would replace."""
    from transformers import PreTrainedModel

    with (
        mock.patch.object(PreTrainedModel, "post_init", return_value=None),
        mock.patch.object(torch.nn.Linear, "reset_parameters", return_value=None),
        mock.patch.object(torch.nn.Embedding, "reset_parameters", return_value=None),
    ):
        yield


def train_spec(method: str, **changes: Any) -> TrainSpec:
    """A method's own recipe, for one epoch."""
    return TrainSpec(**(dict(METHODS[method].recipe) | {"epochs": 1} | changes))


@functools.cache
def rows() -> tuple[Any, ...]:
    """All of Alpaca."""
    return choose(read_instructions(DataSpec(), data_root=data_root()).rows, 1.0, 0)


def examples(count: int, max_length: int) -> list[Example]:
    """Tokenised rows of Alpaca: the first that a training on all rows takes, seed 0."""
    order = next(iter(epoch_batches(len(rows()), count, seed=0, epoch=0)))
    return tokenize([rows()[row] for row in order], tokenizer(), max_length)


def options_of(method: str, shape: ModelShape, **options: Any) -> Any:
    """Returns a method's default options; a shallow model is adapted in all its layers."""
    known = METHODS[method].options
    if "num_layers" in known.model_fields and shape.num_hidden_layers < 32:
        options = {"num_layers": shape.num_hidden_layers} | options
    return known(**options)


def apply(method: str, model: Any, shape: ModelShape, *, cards: int = 1, **options: Any) -> Any:
    """Applies a method as a cell of `cards` does; a shallow model is adapted in all its layers.

    Returns:
        The adapted model, the method, and its training hook.
    """
    entry = METHODS[method]
    chosen = options_of(method, shape, **options)
    model = entry.apply_on(cards, model, chosen, 0)
    return model, entry, entry.hook_of(model, chosen)


def callbacks(model: Any, entry: Any, hook: Any, checkpoints: Any = None) -> list[Any]:
    """What follows a training in a cell: statistics, the hook's state, checkpoints."""
    followers = [MethodStatistics.of(entry, model)]
    followers += [HookState(hook, tokenizer())] if hook else []
    return [*followers, *([checkpoints] if checkpoints else [])]


def fit(
    model: Any, entry: Any, hook: Any, examples: list[Example], spec: TrainSpec, precision: str
) -> Any:
    """Trains as a cell does, with what `apply` gave; returns the result."""
    from harness.training import loop

    return loop.fit(
        *(model, examples, spec),
        seed=0,
        device="cuda",
        precision=precision,
        pad_token_id=0,
        hook=hook,
        callbacks=callbacks(model, entry, hook),
    )
