# ruff: noqa: E501, E402, PT008
"""What a rehearsal plays with: LLaMA's shapes on the card that is not there, and real data.

Everything else is zbench's own code, imported from the path.
"""

from __future__ import annotations

from tests.gpu_rehearsal import before_torch  # noqa: F401

# isort: split

import contextlib
import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from harness.data.instructions import Example, epoch_batches, tokenize
from harness.data.sets import choose, read_instructions
from harness.data.spec import DataSpec
from harness.methods import METHODS
from harness.models.shape import ModelShape
from harness.models.tokenizer_files import load_tokenizer
from harness.training.spec import TrainSpec
from tests.gpu_rehearsal import card as fakecuda  # noqa: F401  # before torch

DATA = Path(os.environ.get("ZBENCH_DATA_ROOT", Path(__file__).resolve().parents[1] / "data"))
SIZES = {
    "7b": dict(
        num_hidden_layers=32, hidden_size=4096, intermediate_size=11008, num_attention_heads=32
    ),
    "13b": dict(
        num_hidden_layers=40, hidden_size=5120, intermediate_size=13824, num_attention_heads=40
    ),
    "tiny": dict(
        num_hidden_layers=4, hidden_size=256, intermediate_size=688, num_attention_heads=4
    ),
}
PAIRS = {"h200": "bf16", "a100-80": "bf16", "v100-32": "fp16", "a100-80 fp32": "fp32"}
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def shape_of(size: str, layers: int | None = None) -> ModelShape:
    """Returns a LLaMA's shape, perhaps with fewer layers."""
    sizes = SIZES[size] | ({"num_hidden_layers": layers} if layers else {})
    return ModelShape(**sizes, vocab_size=32000)


@functools.cache
def tokenizer() -> Any:
    return load_tokenizer(DATA / "llama_tokenizer", 32000)


def base_model(shape: ModelShape, precision: str, device: str = "cuda") -> Any:
    """Returns a LLaMA as `load_base` leaves it on a card: no weights are read."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        **{k: v for k, v in shape.model_dump().items() if k not in ("model_type", "head_dim") and v is not None},
        max_position_embeddings=2048, rms_norm_eps=1e-6, bos_token_id=1, eos_token_id=2,
        pad_token_id=None,
    )  # fmt: skip
    before = torch.get_default_dtype()
    torch.set_default_dtype(DTYPES[precision])
    try:
        with torch.device(device), _without_init():
            config._attn_implementation = "sdpa"
            return LlamaForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def _without_init() -> Iterator[None]:
    """Draws no first weights, which a checkpoint would replace."""
    from unittest import mock

    from transformers import PreTrainedModel

    with (
        mock.patch.object(PreTrainedModel, "post_init", lambda self: None),
        mock.patch.object(torch.nn.Linear, "reset_parameters", lambda self: None),
        mock.patch.object(torch.nn.Embedding, "reset_parameters", lambda self: None),
    ):
        yield


def train_spec(method: str, **changes: Any) -> TrainSpec:
    """Returns a method's own recipe, for one epoch."""
    return TrainSpec(**(dict(METHODS[method].recipe) | {"epochs": 1} | changes))


@functools.cache
def rows() -> tuple[Any, ...]:
    return choose(read_instructions(DataSpec(), data_root=DATA).rows, 1.0, 0)


def examples(count: int, max_length: int) -> list[Example]:
    """Returns tokenised rows of Alpaca: the first that a training on all rows takes, seed 0."""
    order = next(iter(epoch_batches(len(rows()), count, seed=0, epoch=0)))
    return tokenize([rows()[row] for row in order], tokenizer(), max_length)


def apply(method: str, model: Any, shape: ModelShape) -> Any:
    """Applies a method as a cell does, with its default options fitted to a shallow model."""
    entry = METHODS[method]
    given = {}
    if "num_layers" in entry.options.model_fields and shape.num_hidden_layers < 32:
        given = {"num_layers": shape.num_hidden_layers - 1}
    options = entry.options(**given)
    model = entry.apply(model, options, 0)
    return model, entry, entry.hook_of(model, options)


def callbacks(model: Any, entry: Any, hook: Any, checkpoints: Any = None) -> list[Any]:
    """Returns what follows a training in a cell: statistics, the hook's state, checkpoints."""
    from harness.training.method_statistics import HookState, MethodStatistics

    followers = [MethodStatistics.of(entry, model)]
    followers += [HookState(hook, tokenizer())] if hook else []
    return [*followers, *([checkpoints] if checkpoints else [])]
