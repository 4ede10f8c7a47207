"""One model's answers: prompts of tokens through the batched generator of the paper's protocol.

BOS, autocast, greedy ties, the pool and the check of kept keys and values are the protocol's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.answers.store import COLUMNS, Entry, StopReason
from harness.evaluation.benchmarks import Decoding

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from harness.answers.prompts import Asked

GROUP = "answers"
"""What a fault of the generator calls the prompts."""


@dataclass(frozen=True)
class Answers:
    """What a model answered."""

    frame: pd.DataFrame
    """Columns of COLUMNS, one row per entry, in order."""
    max_new_tokens: int
    """Fewer than asked for where the model has room for less."""
    num_cut: int
    """Prompts that lost their beginning, since the model has no room for more."""
    num_rows: int
    """Answers side by side, as they fitted into memory."""


def generate_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    entries: Sequence[Entry],
    asked: Asked,
    decoding: Decoding,
    *,
    precision: str,
    on_progress: Callable[[int, int], None] | None = None,
) -> Answers:
    """A model's answers to entries.

    Args:
        model: with what is trained, on its device.
        tokenizer: of the prompts.
        entries: what is answered.
        asked: their prompts, in the same order.
        decoding: of all of them. What is drawn belongs to an entry's id: the same random numbers
            for every model.
        precision: bf16, fp16 or fp32; with bf16 the model runs under autocast.
        on_progress: called with (answers done, answers in all).

    Raises:
        EvaluationError: the tokenizer has no EOS, the memory is too small for one answer, or the
            model's logits are not numbers.
    """
    import pandas as pd

    from harness.evaluation.lm_eval_session import lm_eval_session
    from harness.evaluation.paper.generator import Response
    from harness.evaluation.paper.model import GeneratingModel

    found: dict[int, tuple[str, int, StopReason]] = {}
    with lm_eval_session(model, tokenizer):
        generating = GeneratingModel(model, tokenizer, decoding=decoding, precision=precision)
        prompts = [
            generating.fitted(tokens, entry.id, GROUP)
            for entry, tokens in zip(entries, asked.prompts, strict=True)
        ]

        def on_done(number: int, response: Response) -> None:
            text = generating.decode_response(prompts[number].tokens, response.tokens)
            found[number] = text, len(response.tokens), "eos" if response.ended else "length"
            if on_progress is not None:
                on_progress(len(found), len(entries))

        generating.respond(prompts, on_done, asked.end_tokens)
    rows = [
        (entry.id, entry.category, entry.instruction, entry.input, *found[number], entry.dataset)
        for number, entry in enumerate(entries)
    ]
    return Answers(
        frame=pd.DataFrame(rows, columns=list(COLUMNS)),
        max_new_tokens=generating.decoding.max_new_tokens,
        num_cut=generating.truncated[GROUP],
        num_rows=generating.batching.effective,
    )
