"""lm-eval's evaluator around a model object: nothing is printed, and nothing is left changed."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import lm_eval.utils
from lm_eval.api.model import LM
from lm_eval.evaluator import evaluate
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from harness.evaluation.loading import LoadedBenchmark


def run_requests(lm: LM, loaded: Sequence[LoadedBenchmark]) -> Mapping[str, Any]:
    """Returns lm-eval's results of benchmarks, with `samples`; their requests run together.

    Raises:
        EvaluationError: lm-eval cannot make prompts of the rows.
    """
    for benchmark in loaded:
        benchmark.build_requests()
    results = evaluate(
        lm=lm,
        task_dict={
            "tasks": {name: task for one in loaded for name, task in one.tasks.items()},
            "groups": {name: group for one in loaded for name, group in one.groups.items()},
        },
        limit=loaded[0].task.limit,
        log_samples=True,
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
