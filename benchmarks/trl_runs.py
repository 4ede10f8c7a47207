"""TRL's SFTTrainer with packing, a peer of the training speed measurement where TRL is installed.

    pip install --no-deps --target FOLDER trl==1.16.0     # and FOLDER on PYTHONPATH

TRL packs the sequences whole, best fit decreasing, into rows of at most `max_length` tokens, lays
the rows of a micro-batch end to end, without padding, and names each document's beginning by its
positions. On a card flash attention follows them. On a CPU there is none: transformers makes a
dense mask from the positions, blocks on its diagonal, so that no document sees another, and SDPA
computes all scores of the micro-batch, (N, N). TRL's loss keeps no logits; on a CPU it computes
those of every position in chunks, on a card those of labels alone. Set otherwise than by default:
fp32, and no gradient checkpointing, which would make it slower. Its loss wants a forward of its own
on the model, past which PEFT's AdaptionPrompt runs: TRL 1.16 cannot train that.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import torch

MISSING = "trl is not installed (pip install --no-deps trl==1.16.0)"


def why_not() -> str | None:
    """Returns why TRL cannot be measured here; None where it can."""
    return MISSING if importlib.util.find_spec("trl") is None else None


def sft_trainer(
    model: Any, size: int, max_length: int, rows_of: Callable[[Any], dict[str, Any]]
) -> Callable[[Sequence[Sequence[Any]]], float]:
    """Returns what trains the model with SFTTrainer: each optimizer batch is one step.

    Args:
        model: with or without PEFT's adapter.
        size: packed rows of a micro-batch.
        max_length: tokens of a row.
        rows_of: ids and labels of an example.
    """
    from datasets import Dataset, disable_progress_bars
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast, PrinterCallback
    from trl import SFTConfig, SFTTrainer, pack_dataset

    from benchmarks.training_runs import TrainingClock

    disable_progress_bars()
    # The sequences are tokens already: only the end's id is asked of it.
    words = WordLevel({"<unk>": 0, "<s>": 1, "</s>": 2}, unk_token="<unk>")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(words), eos_token="</s>", pad_token="</s>"
    )

    def train(batches: Sequence[Sequence[Any]]) -> float:
        seconds = 0.0
        for examples in batches:
            data = Dataset.from_list([rows_of(example) for example in examples])
            packed = len(pack_dataset(data, max_length, "bfd"))
            watch = TrainingClock()
            with tempfile.TemporaryDirectory() as folder:
                settings = SFTConfig(
                    output_dir=folder,
                    packing=True,
                    max_length=max_length,
                    per_device_train_batch_size=size,
                    gradient_accumulation_steps=-(-packed // size),
                    num_train_epochs=1,
                    learning_rate=1e-4,
                    optim="adamw_torch_fused",
                    bf16=torch.cuda.is_available(),
                    gradient_checkpointing=False,
                    save_strategy="no",
                    report_to="none",
                    disable_tqdm=True,
                    use_cpu=not torch.cuda.is_available(),
                )
                trainer = SFTTrainer(
                    model=model,
                    args=settings,
                    train_dataset=data,
                    processing_class=tokenizer,
                    callbacks=[watch],
                )
                trainer.remove_callback(PrinterCallback)
                trainer.train()
                assert trainer.state.global_step == 1
            seconds += watch.seconds
        return seconds

    return train
