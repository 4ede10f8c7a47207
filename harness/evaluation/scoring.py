"""Runs a benchmark's requests through lm-eval's own `HFLM` around a model object.

What differs from a bare `HFLM`: no progress bar of its own, encodings kept between models of one
tokenizer, a count of the requests that are too long for the model, and the model and tokenizer
left as they were.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import lm_eval.utils
from lm_eval.api.instance import Instance
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from harness.errors import EvaluationError
from harness.evaluation.loading import LoadedBenchmark

Progress = Callable[[int, int], None]
Encoding = tuple[list[int], list[int]]

MAX_KEPT_TOKENS = 4_000_000
"""Encodings are kept for the next model up to so many tokens in all (about 100 MB)."""

BOOTSTRAP_ITERS = 100_000
"""lm-eval's default; standard errors of means, the only ones here, are closed forms without it."""


class EncodingCache:
    """Token ids of (context, answer) pairs under one tokenizer, up to MAX_KEPT_TOKENS."""

    def __init__(self) -> None:
        self._num_tokens = 0
        self._encodings: dict[tuple[str, str], Encoding] = {}

    def get(self, pair: tuple[str, str]) -> Encoding | None:
        """Returns the pair's encoding if it is kept."""
        return self._encodings.get(pair)

    def put(self, pair: tuple[str, str], encoding: Encoding) -> None:
        """Keeps an encoding while there is room."""
        size = len(encoding[0]) + len(encoding[1])
        if self._num_tokens + size <= MAX_KEPT_TOKENS:
            self._encodings[pair] = encoding
            self._num_tokens += size


_ENCODINGS: dict[str, EncodingCache] = {}


@dataclass(frozen=True)
class Run:
    """What running a benchmark's requests gave."""

    results: Mapping[str, Any]
    """lm-eval's results, with `samples`."""
    truncated: Mapping[str, int]
    """Number of requests that lost their beginning to the model's length, by task."""
    max_length: int
    """The model's positions."""


class _ProgressHook:
    """Called by HFLM after each request, where lm-eval would write its cache of answers."""

    def __init__(self, total: int, on_progress: Progress | None) -> None:
        self._total = total
        self._done = 0
        self._on_progress = on_progress

    def add_partial(self, _method: str, _request: Any, _answer: Any) -> None:
        self._done += 1
        if self._on_progress is not None:
            self._on_progress(self._done, self._total)


class Scorer(HFLM):
    """lm-eval's model class over a model object.

    Attributes:
        truncated: number of requests that lost their beginning to the model's length, by task.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        precision: str,
        batch_size: int,
        encodings: EncodingCache,
        num_requests: int,
        on_progress: Progress | None,
    ) -> None:
        # As in training: what is trained stays in fp32 (all of the model in full fine-tuning) and
        # is multiplied in bf16 where the base is bf16.
        mixed = "bfloat16" if precision == "bf16" else None
        super().__init__(
            pretrained=model,
            tokenizer=tokenizer,
            batch_size=batch_size,
            mixed_precision_dtype=mixed,
            # Logits stay what the model computes. A softmax in bf16 would round log-likelihoods of
            # 64 to 128 nats to multiples of 0.5, and tie answers that the model tells apart.
            softmax_dtype="float32",
        )
        # Resolved once: HFLM looks it up in the configuration several times per request.
        self._max_length = self.max_length
        self.truncated: Counter[str] = Counter()
        self._encodings = encodings
        self.set_cache_hook(_ProgressHook(num_requests, on_progress))

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = True
    ) -> list[tuple[float, bool]]:
        """Returns (log-likelihood in nats, whether greedy) of each answer, as `HFLM` does."""
        self._task_names = [request.task_name or "" for request in requests]
        answers: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=True)
        return answers

    def _encode_pair(self, context: str, continuation: str) -> Encoding:
        encoding = self._encodings.get((context, continuation))
        if encoding is None:
            encoding = super()._encode_pair(context, continuation)
            self._encodings.put((context, continuation), encoding)
        return encoding

    def _loglikelihood_tokens(
        self, requests: list[Any], disable_tqdm: bool = True, **kwargs: Any
    ) -> list[tuple[float, bool]]:
        for name, (pair, context, answer) in zip(self._task_names, requests, strict=True):
            if not 0 < len(answer) <= self.max_length:
                raise EvaluationError(
                    f"{name}: the answer {pair[1][:60]!r} is {len(answer)} tokens long and the "
                    f"model takes 1 to {self.max_length}"
                )
            # The last token is never fed, so one more than the model's length still fits.
            self.truncated[name] += len(context) + len(answer) > self.max_length + 1
        answers: list[tuple[float, bool]] = super()._loglikelihood_tokens(
            requests, disable_tqdm=True, **kwargs
        )
        return answers


def run_requests(
    loaded: LoadedBenchmark,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    tokenizer_sha256: str,
    precision: str,
    batch_size: int,
    on_progress: Progress | None,
) -> Run:
    """Scores a benchmark's requests and lets lm-eval make its results of them.

    Raises:
        EvaluationError: the prompts cannot be built, an answer is longer than the model takes, or
            the tokenizer ends every text with EOS.
    """
    _check_tokenizer(tokenizer)
    with _quiet(), _kept_templates(), _left_as_it_was(model, tokenizer):
        scorer = Scorer(
            model,
            tokenizer,
            precision=precision,
            batch_size=batch_size,
            encodings=_ENCODINGS.setdefault(tokenizer_sha256, EncodingCache()),
            num_requests=loaded.build_requests(),
            on_progress=on_progress,
        )
        results = evaluate(
            lm=scorer,
            task_dict={"tasks": dict(loaded.tasks), "groups": dict(loaded.groups)},
            limit=loaded.task.limit,
            bootstrap_iters=BOOTSTRAP_ITERS,
            log_samples=True,
        )
        assert results is not None  # there is one rank
        return Run(results=results, truncated=scorer.truncated, max_length=scorer.max_length)


def _check_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    # lm-eval splits context + answer at the context's length, so a closing EOS shifts the answer.
    if tokenizer.encode("a")[-1] == tokenizer.eos_token_id:
        raise EvaluationError(
            "the tokenizer appends EOS to every text, which log-likelihood tasks cannot score; set "
            "add_eos_token to false in its tokenizer_config.json"
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
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
def _kept_templates() -> Iterator[None]:
    """Compiles each prompt template once: lm-eval compiles it anew for every document."""
    environment = lm_eval.utils.env
    environment.from_string = lru_cache(maxsize=1024)(environment.from_string)
    try:
        yield
    finally:
        del environment.from_string


@contextlib.contextmanager
def _left_as_it_was(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Iterator[None]:
    """Puts the model in evaluation mode without a KV cache, and undoes what HFLM changes."""
    training = [(module, module.training) for module in model.modules()]
    use_cache = getattr(model.config, "use_cache", None)
    pad_token = tokenizer.pad_token
    model.eval()
    # Each request is one forward pass: a KV cache would only cost time and memory.
    model.config.use_cache = False
    try:
        yield
    finally:
        for module, mode in training:
            module.training = mode
        model.config.use_cache = use_cache
        tokenizer.pad_token = pad_token
