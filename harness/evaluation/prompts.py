"""The requests of a benchmark's items as the model is given them; needs a tokenizer, no weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lm_eval.models.huggingface import HFLM

from harness.data.scienceqa import SCIENCEQA
from harness.data.shown import pieces_of
from harness.data.templates import ALPACA, CHAT
from harness.errors import EvaluationError
from harness.evaluation.chat import chat_template_of
from harness.evaluation.loading import LoadedBenchmark
from harness.evaluation.paper.model import GeneratingModel
from harness.evaluation.pictures import picture_of_request, without_pictures
from harness.evaluation.tasks import TaskSpec
from harness.readers.pictures import BadPicture, Picture
from harness.records.prompts import Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


ALPACA_FRAME = ("### Instruction:\n", "### Response:")
"""What a prompt in Alpaca's template holds, whatever its first sentence says."""
SCIENCEQA_FRAME = ("Question: ", "\nContext: ", "\nOptions: (A) ", "\nAnswer:")
"""What a prompt in ScienceQA's template holds."""


class _Encoder:
    """Encodes as HFLM does, without a model."""

    backend, add_bos_token, custom_prefix_token_id = "causal", None, None

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.prefix_token_id = HFLM.prefix_token_id.fget(self)

    def tok_encode(self, text: str, **others: Any) -> list[int]:
        """See `HFLM.tok_encode`."""
        return list(HFLM.tok_encode(self, text, **others))

    def pair(self, context: str, answer: str) -> tuple[list[int], list[int]]:
        """See `TemplateLM.loglikelihood`."""
        if context:
            return HFLM._encode_pair(self, context, answer)
        return [self.prefix_token_id], self.tok_encode(answer, add_special_tokens=False)


def first_item(loaded: LoadedBenchmark, tokenizer: PreTrainedTokenizerBase) -> list[Prompt]:
    """The requests of a benchmark's first item; what is scored of each is marked.

    Of an item with options there is one for each; of a generation the prompt, of which nothing is
    scored. Cut to the model's length they are not.

    Raises:
        EvaluationError: lm-eval cannot make prompts of the rows.
    """
    chat = chat_template_of(tokenizer) if loaded.task.apply_chat_template else None
    loaded.build_requests(chat)
    task = next(iter(loaded.tasks.values()))
    first = [one for one in task.instances if one.doc_id == task.instances[0].doc_id]
    return [_prompt(loaded.task, one, tokenizer) for one in without_pictures(first)]


def first_picture(loaded: LoadedBenchmark) -> Picture | None:
    """The picture of a benchmark's first item, whose requests were made by `first_item`.

    Raises:
        EvaluationError: it has several, or what is no picture.
    """
    task = next(iter(loaded.tasks.values()))
    found = picture_of_request(task.instances[0])
    if found is not None:
        try:
            found.check()
        except BadPicture as fault:
            raise EvaluationError(f"{loaded.task.name}: the first item: {fault}") from fault
    return found


def _prompt(task: TaskSpec, request: Any, tokenizer: PreTrainedTokenizerBase) -> Prompt:
    encoder: Any = _Encoder(tokenizer)
    scored: list[int] = []
    match request.request_type:
        case "loglikelihood":
            context, scored = encoder.pair(*request.args[:2])  # behind them is a picture
        case "loglikelihood_rolling":
            context, scored = [encoder.prefix_token_id], encoder.tok_encode(request.args[0])
        case _ if task.benchmark.protocol.generates:
            context = list(GeneratingModel.encode_prompt(encoder, request.args[0]))
        case _:
            context = encoder.tok_encode(request.args[0])
    size = len(context)
    pieces = pieces_of([*context, *scored], [(size, size + len(scored))], tokenizer)
    return Prompt(evaluation_template(task, request.args[0]), pieces)


def evaluation_template(task: TaskSpec, text: str) -> str:
    """The template that a benchmark's prompt is in: a name of training's, or `none`."""
    if task.apply_chat_template:
        return CHAT
    frames = {ALPACA: ALPACA_FRAME, SCIENCEQA: SCIENCEQA_FRAME}
    found = (name for name, frame in frames.items() if all(part in text for part in frame))
    return next(found, "none")
