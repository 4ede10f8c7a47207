"""Runs the requests of benchmarks through a scorer, and lets lm-eval make its results of them.

Nothing is printed, encodings are kept between models of one tokenizer, requests that are too long
for the model are counted, and the model and tokenizer are left as they were.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import lm_eval.utils
from lm_eval.evaluator import evaluate
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from harness.errors import EvaluationError
from harness.evaluation.loading import LoadedBenchmark
from harness.evaluation.scorer import Batching, EncodingCache, Progress, Scorer

BOOTSTRAP_ITERS = 100_000
"""lm-eval's default; standard errors of means, the only ones here, are closed forms without it."""

_ENCODINGS: dict[str, EncodingCache] = {}


@dataclass(frozen=True)
class Run:
    """What running the requests of benchmarks gave."""

    results: Mapping[str, Any]
    """lm-eval's results, with `samples`."""
    truncated: Mapping[str, int]
    """Number of requests that lost their beginning to the model's length, by task."""
    max_length: int
    """The model's positions."""
    batching: Batching


def run_requests(
    loaded: Sequence[LoadedBenchmark],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    tokenizer_sha256: str,
    precision: str,
    token_budget: int,
    on_progress: Progress | None,
) -> Run:
    """Scores the requests of benchmarks together; what several ask for is computed once.

    Raises:
        EvaluationError: the prompts cannot be built, an answer is longer than the model takes, the
            tokenizer ends every text with EOS, or the memory is too small for one question.
    """
    _check_tokenizer(tokenizer)
    with quiet(), kept_templates(), left_as_it_was(model, tokenizer):
        scorer = Scorer(
            model,
            tokenizer,
            precision=precision,
            token_budget=token_budget,
            encodings=_ENCODINGS.setdefault(tokenizer_sha256, EncodingCache()),
            num_requests=sum(benchmark.build_requests() for benchmark in loaded),
            on_progress=on_progress,
        )
        results = evaluate(
            lm=scorer,
            task_dict={
                "tasks": {name: task for one in loaded for name, task in one.tasks.items()},
                "groups": {name: group for one in loaded for name, group in one.groups.items()},
            },
            limit=loaded[0].task.limit,
            bootstrap_iters=BOOTSTRAP_ITERS,
            log_samples=True,
        )
        assert results is not None  # there is one rank
        return Run(results, scorer.truncated, scorer.max_length, scorer.batching)


def _check_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    # lm-eval splits context + answer at the context's length, so a closing EOS shifts the answer.
    if tokenizer.encode("a")[-1] == tokenizer.eos_token_id:
        raise EvaluationError(
            "the tokenizer appends EOS to every text, which log-likelihood tasks cannot score; set "
            "add_eos_token to false in its tokenizer_config.json"
        )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps chatter out: warnings about every model object and every long request."""
    loggers = [
        logging.getLogger(name) for name in ("lm_eval", "transformers.tokenization_utils_base")
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def kept_templates() -> Iterator[None]:
    """Compiles each prompt template once: lm-eval compiles it anew for every document."""
    environment = lm_eval.utils.env
    environment.from_string = lru_cache(maxsize=1024)(environment.from_string)
    try:
        yield
    finally:
        del environment.from_string


@contextlib.contextmanager
def left_as_it_was(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Iterator[None]:
    """Puts the model in evaluation mode, and undoes what HFLM changes."""
    training = [(module, module.training) for module in model.modules()]
    use_cache = getattr(model.config, "use_cache", None)
    pad_token = tokenizer.pad_token
    model.eval()
    # Keys and values are kept where the scorer asks for it, and nowhere else.
    model.config.use_cache = False
    try:
        yield
    finally:
        for module, mode in training:
            module.training = mode
        model.config.use_cache = use_cache
        tokenizer.pad_token = pad_token
