"""lm-eval around a model object: the base of both protocols' model classes, and its evaluator.

Nothing is printed, and nothing is left changed.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import lm_eval.utils
import torch
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from harness.errors import EvaluationError, ZbenchError
from harness.evaluation.chat import chat_template_of
from harness.evaluation.loading import LoadedBenchmark, code_execution, global_seeds
from harness.evaluation.pictures import EncodePictures, RequestPictures
from harness.evaluation.trial import first_line
from harness.models.devices import DTYPES, is_out_of_memory

BOOTSTRAP_DRAWS = 100_000
"""lm-eval's number of draws for a standard error that has no formula."""
SCORING_STEPS = {"apply_filters", "process_results", "_process_results"}
"""lm-eval's functions that score what a model has answered."""
ONE_PROCESS = "DISABLE_MULTIPROC"
"""The variable that keeps lm-eval's bootstrap in one process."""
AUTOCAST_DTYPES: dict[str, str] = {name: dtype for name, dtype in DTYPES.items() if name != "fp32"}
"""torch's name of what a model computes in, by precision; fp32 is every model's own way."""
OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class Batching:
    """How requests were run together; in half precision it moves the low bits of scores."""

    setting: int
    """Tokens of a forward pass, padding included; or responses side by side."""
    effective: int
    """What fitted in memory: the setting, or less where it was halved."""
    fallback: str | None = None
    """Why requests were run without shared or cached keys and values; None where none were."""


class InMemoryHFLM(HFLM):
    """A causal language model on its device, with its tokenizer.

    Args:
        precision: bf16, fp16 or fp32; in half precision the model runs under autocast. As in
            training: what is trained stays in fp32 (all of the model in full fine-tuning) and is
            multiplied in half precision where the base is in it.
        batch_setting: see `Batching`.
        on_progress: called with (requests done, requests in all).
        encode_pictures: gives features of distinct pictures; None: the model is shown none.

    Attributes:
        pictures: those of the requests.
        truncated: number of requests that lost their beginning to the model's length, by task.
        batching: how the requests so far were run.
    """

    unit: str
    """What the batch setting counts."""
    fallback_note: str
    """How scores were computed where `Batching.fallback` is set: the note's text."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        precision: str,
        batch_setting: int,
        on_progress: OnProgress | None,
        encode_pictures: EncodePictures | None = None,
        **hflm: Any,
    ) -> None:
        super().__init__(
            pretrained=model,
            tokenizer=tokenizer,
            mixed_precision_dtype=AUTOCAST_DTYPES.get(precision),
            **hflm,
        )
        self.pictures = RequestPictures(model, encode_pictures)
        self.truncated: Counter[str] = Counter()
        self.batching = Batching(batch_setting, batch_setting)
        self._on_progress = on_progress
        self._num_done = 0

    @property
    def room(self) -> str:
        """What requests that lost their beginning are longer than."""
        return f"the model's {self.max_length} positions"

    def count_done(self, num_requests: int) -> None:
        """Tells of one more request that is done, of so many in all."""
        self._num_done += 1
        if self._on_progress is not None:
            self._on_progress(self._num_done, num_requests)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Returns the context of a forward pass."""
        return torch.autocast(
            device_type=self.device.type,
            dtype=self.mixed_precision_dtype,
            enabled=self.mixed_precision_dtype is not None,
        )


@contextlib.contextmanager
def _one_process() -> Iterator[None]:
    """Bootstrapped errors are drawn in this process: a worker's may have none of its own. They are
    the same numbers, and lm-eval prints a line and a bar for each.
    """
    before = os.environ.get(ONE_PROCESS)
    os.environ[ONE_PROCESS] = "1"
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        if before is None:
            del os.environ[ONE_PROCESS]
        else:
            os.environ[ONE_PROCESS] = before


@contextlib.contextmanager
def _scoring_faults(loaded: Sequence[LoadedBenchmark]) -> Iterator[None]:
    """Tells in one line what a task's own filters and metrics raise; all else passes."""
    try:
        yield
    except ZbenchError:
        raise
    except Exception as fault:  # of a task's own functions, and of the libraries of metrics
        steps = [frame.name for frame in traceback.extract_tb(fault.__traceback__)]
        if is_out_of_memory(fault) or not SCORING_STEPS & set(steps):
            raise
        names = ", ".join(one.task.name for one in loaded)
        raise EvaluationError(
            f"{names}: its filters or metrics fail on these responses ({first_line(fault)}); "
            "correct the task, or leave it out"
        ) from fault


def run_requests(lm: InMemoryHFLM, loaded: Sequence[LoadedBenchmark]) -> Mapping[str, Any]:
    """Returns lm-eval's results of benchmarks, with `samples`; their requests run together.

    Raises:
        EvaluationError: lm-eval cannot make prompts of the rows, or the tokenizer has no chat
            template.
    """
    task = loaded[0].task
    chat = chat_template_of(lm.tokenizer) if task.apply_chat_template else None
    for benchmark in loaded:
        benchmark.build_requests(chat)
    if any(getattr(task, "MULTIMODAL", False) for one in loaded for task in one.tasks.values()):
        lm.MULTIMODAL = True  # lm-eval refuses pictures of any other class
    settings = loaded[0].prompt_settings()
    settings.pop("chat_template", None)  # lm-eval asks the model for it
    with code_execution(task), global_seeds(), _one_process(), _scoring_faults(loaded):
        results = evaluate(
            lm=lm,
            task_dict={
                "tasks": {name: task for one in loaded for name, task in one.tasks.items()},
                "groups": {name: group for one in loaded for name, group in one.groups.items()},
            },
            limit=task.limit,
            log_samples=True,
            bootstrap_iters=BOOTSTRAP_DRAWS,
            confirm_run_unsafe_code=task.allow_code_execution,
            **settings,
        )
    assert results is not None  # there is one rank
    return results


@contextlib.contextmanager
def lm_eval_session(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Iterator[None]:
    """The context in which lm-eval's model classes are made of a model, and run.

    The model is in evaluation mode; what HFLM changes of it and of the tokenizer is undone.
    """
    # They warn about every model object and every long request.
    chatty = map(logging.getLogger, ("lm_eval", "transformers.tokenization_utils_base"))
    levels = {logger: logger.level for logger in chatty}
    training = [(module, module.training) for module in model.modules()]
    use_cache, pad_token = getattr(model.config, "use_cache", None), tokenizer.pad_token
    # lm-eval compiles each prompt template anew for every document.
    templates = lm_eval.utils.env
    templates.from_string = lru_cache(maxsize=1024)(templates.from_string)
    try:
        for logger in levels:
            logger.setLevel(logging.ERROR)
        model.eval()
        # Keys and values are kept where the scorer asks for it, and nowhere else.
        model.config.use_cache = False
        yield
    finally:
        for module, mode in training:
            module.training = mode
        model.config.use_cache = use_cache
        tokenizer.pad_token = pad_token
        del templates.from_string
        for logger, level in levels.items():
            logger.setLevel(level)
