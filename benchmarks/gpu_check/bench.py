"""What all checks work on: a device, models of true shapes, and rows, real or of true lengths."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_check.expected import Expected
from benchmarks.gpu_check.lengths import MAX_LENGTH, Lengths, first_rows, known_lengths
from benchmarks.gpu_check.rows import Row
from benchmarks.training_runs import adapt, fitted_options
from harness.data.instructions import Example, epoch_batches, tokenize
from harness.methods import METHODS
from harness.models.devices import free_memory
from harness.training.spec import TrainSpec
from harness.training.step import TrainStep

VOCABULARY = 32000
FORM = 12
"""Tokens that both forms of Alpaca's template begin with."""
SEQUENCES = {"tiny": 4, "7B/2": 8}
"""Of an optimizer batch, by size: as many as the rehearsal's; at full depth the recipe's."""
ROOM_GB = 3.0
"""Beside the rehearsed peak: fragments, workspaces, and the driver's context."""
SEVEN_B_GB = {
    "zero-init-linear": 52.0,
    "zero-init-nonlinear": 52.0,
    "random-init": 52.0,
    "lora": 66.0,
}
"""Free memory that a step at full depth needs where nothing was rehearsed."""


@dataclass(frozen=True)
class Bench:
    """Where and on what the checks run."""

    device: str
    folder: Path
    """A temporary folder."""
    tiny: bool = False
    """Whether the logic of the checks is tried, at no size that means anything."""
    data_root: Path | None = None
    """Of real data; None for rows of true lengths."""
    expected: Expected = field(default_factory=lambda: Expected({}))
    free_gb: float | None = None
    """Memory that was free at the start; None on a CPU."""
    seen: list[Row] = field(default_factory=list)
    """The rows so far."""

    @property
    def on_card(self) -> bool:
        """Whether the device is a card."""
        return self.device.startswith("cuda")

    @property
    def data(self) -> str:
        """What the rows are."""
        if self.data_root is None:
            return "synthetic rows of the lengths of real ones, random tokens"
        return f"real rows of {self.data_root}"

    @property
    def half(self) -> str:
        """The card's own half precision."""
        if self.on_card and not torch.cuda.is_bf16_supported(including_emulation=False):
            return "fp16"
        return "bf16"

    def size(self, needs_gb: float) -> str:
        """The deepest size whose step fits the memory that is free."""
        if self.tiny:
            return "tiny"
        return "7B" if (self.free_gb or 0.0) >= needs_gb else "7B/2"

    def step_size(self, method: str) -> str:
        """The deepest size at which a method's step fits."""
        rehearsed = self.expected.step(method, "7B")
        peak = rehearsed.peak_gb + ROOM_GB if rehearsed else SEVEN_B_GB.get(method, 180.0)
        return self.size(peak)

    def adapted(self, method: str, size: str, precision: str) -> Any:
        """A random model with a method applied to it."""
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[precision]
        return adapt(method, size, device=self.device, dtype=dtype)

    def train_step(
        self, method: str, size: str, precision: str, **changes: Any
    ) -> tuple[TrainStep, TrainSpec]:
        """A model's training step with the method's own recipe."""
        model = self.adapted(method, size, precision)
        given = dict(METHODS[method].recipe) | {"epochs": 1}
        if size in SEQUENCES:
            given["batch_size"] = SEQUENCES[size]
        spec = TrainSpec(**(given | {"precision": precision} | changes))
        step = TrainStep(
            model.train(),
            spec,
            device=torch.device(self.device),
            precision=precision,
            pad_token_id=0,
            hook=METHODS[method].hook_of(model, fitted_options(method, size)),
        )
        return step, spec

    @cached_property
    def lengths(self) -> Lengths:
        """The lengths that synthetic rows are made of."""
        return known_lengths()

    @cached_property
    def examples(self) -> list[Example]:
        """The first rows that a training on all of Alpaca takes with seed 0, as tokens."""
        if self.data_root is not None:
            rows: Any = first_rows(self.data_root, len(self.lengths.alpaca))
            return tokenize(rows, self.tokenizer, MAX_LENGTH)
        return synthetic_examples(self.lengths)

    def batches(self, count: int, spec: TrainSpec) -> list[list[Example]]:
        """Optimizer batches of a recipe, as a training on the first so many rows has them."""
        sequences = spec.batch_size
        chosen = [
            Example(one.token_ids[: spec.max_length], min(one.num_prompt_tokens, spec.max_length))
            for one in self.examples[: count * sequences]
        ]
        if self.tiny:
            chosen = [cut(example, 48) for example in chosen]
        order = epoch_batches(len(chosen), sequences, seed=0, epoch=0)
        return [[chosen[index] for index in indices] for indices in order]

    @cached_property
    def tokenizer(self) -> Any:
        """LLaMA's, where its data is here; else one of 32,000 made-up words."""
        if self.data_root is not None:
            from harness.models.tokenizer_files import load_tokenizer

            return load_tokenizer(self.data_root / "llama_tokenizer", VOCABULARY)
        return word_tokenizer()

    @cached_property
    def task_root(self) -> Path:
        """The folder of the benchmarks' rows: the real one, or a synthetic ARC-Easy."""
        return self.data_root or write_arc(self.folder / "tasks", self.lengths)

    @contextlib.contextmanager
    def released(self) -> Iterator[None]:
        """Frees the device's memory behind a piece of work."""
        try:
            yield
        finally:
            free_memory(self.device)


def cut(example: Example, most: int) -> Example:
    """A shorter example, with a label or more."""
    prompt = min(example.num_prompt_tokens, most - 8)
    start = example.num_prompt_tokens - prompt
    return Example(example.token_ids[start : start + most], prompt)


def synthetic_examples(lengths: Lengths) -> list[Example]:
    """Rows of random tokens, which share as many with the others of their form as real ones."""
    draw = random.Random(0)
    forms = {
        shared: [1, *(draw.randrange(3, VOCABULARY) for _ in range(shared - 1))]
        for shared in sorted({shared for shared, _, _ in lengths.alpaca})
    }
    first = next(iter(forms.values()))[:FORM]
    found = []
    for shared, prompt, whole in lengths.alpaca:
        own = [draw.randrange(3, VOCABULARY) for _ in range(whole - shared - 1)]
        ids = [*first, *forms[shared][FORM:], *own, 2]
        found.append(Example(tuple(ids), prompt))
    return found


def word_tokenizer() -> Any:
    """A tokenizer of 32,000 words: w0, w1 ...; other words are one token each, unknown."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<unk>", "<s>", "</s>", *(f"w{number}" for number in range(3, VOCABULARY))]
    backend = Tokenizer(
        models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>")
    )
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


def write_arc(root: Path, lengths: Lengths) -> Path:
    """Writes an ARC-Easy of made-up words, as many as real questions and answers have tokens."""
    import pandas as pd

    draw = random.Random(1)

    def text(count: int) -> str:
        return " ".join(f"w{draw.randrange(3, VOCABULARY)}" for _ in range(count))

    rows = [
        {
            "id": f"made-up-{number}",
            "question": text(question),
            "choices": {
                "text": list(map(text, answers)),
                "label": list("ABCDEFGH"[: len(answers)]),
            },
            "answerKey": "ABCDEFGH"[draw.randrange(len(answers))],
        }
        for number, (question, answers) in enumerate(lengths.arc)
    ]
    (root / "arc_easy").mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_parquet(root / "arc_easy" / "test.parquet")
    return root


def all_finite(numbers: Sequence[float]) -> bool:
    """Whether there are numbers, and all of them are finite."""
    return bool(numbers) and all(torch.isfinite(torch.tensor(list(numbers))).tolist())
