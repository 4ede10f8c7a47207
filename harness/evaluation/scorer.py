"""lm-eval's model class over a model object, scoring requests over the trie of their tokens."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import groupby
from typing import Any

from lm_eval.api.instance import Instance
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from harness.errors import EvaluationError
from harness.evaluation.lm_eval_session import InMemoryHFLM, OnProgress
from harness.evaluation.memory import halve_until_it_fits
from harness.evaluation.prefix_trie.checks import check_sharing, reason_against
from harness.evaluation.prefix_trie.forward import TrieForward
from harness.evaluation.prefix_trie.scoring import Done, score_queries
from harness.evaluation.prefix_trie.trie import Query
from harness.evaluation.tasks import DEFAULT_TOKEN_BUDGET
from harness.evaluation.trial import WrongResultError, attention_window

Encoding = tuple[list[int], list[int]]
Answer = tuple[float, bool]
"""Log-likelihood in nats, and whether the answer is what the model would say greedily."""

MAX_KEPT_TOKENS = 4_000_000
"""Encodings are kept for the next model up to so many tokens in all (about 100 MB)."""
PLAIN_BATCH_SIZE = 8
"""Requests of a forward pass where nothing is shared."""
PLAIN_ROUND = 256
"""Requests given to HFLM at once there: what is scored when memory runs out stays scored."""

logger = logging.getLogger(__name__)


class EncodingCache:
    """Token ids of (context, answer) pairs under one tokenizer, up to MAX_KEPT_TOKENS."""

    def __init__(self) -> None:
        self._num_tokens = 0
        self._encodings: dict[tuple[str, str], Encoding] = {}

    def get(self, pair: tuple[str, str], encode: Callable[[str, str], Encoding]) -> Encoding:
        """The pair's encoding, kept while there is room."""
        if pair in self._encodings:
            return self._encodings[pair]
        encoding = encode(*pair)
        size = sum(map(len, encoding))
        if self._num_tokens + size <= MAX_KEPT_TOKENS:
            self._encodings[pair] = encoding
            self._num_tokens += size
        return encoding


class Scorer(InMemoryHFLM):
    """lm-eval's model class over a model object, which computes what requests share once.

    Log-likelihoods are those of `HFLM`; rolling ones and generation are `HFLM`'s own. One case
    differs: of requests that have the same text and split it at different positions, lm-eval 0.4.13
    scores all but the longest answer at wrong positions (with its `logits_cache`, the default);
    here each gets what `HFLM` gives it alone.

    Args, beside those of `InMemoryHFLM`:
        precision: bf16, fp16 or fp32; in half precision the model runs under autocast.
        token_budget: tokens of a forward pass, padding included.
        encodings: of earlier requests under the same tokenizer.
    """

    unit, fallback_note = "tokens", "scored request by request"

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        precision: str = "fp32",
        token_budget: int = DEFAULT_TOKEN_BUDGET,
        encodings: EncodingCache | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        super().__init__(
            model,
            tokenizer,
            # As in training: what is trained stays in fp32 (all of the model in full fine-tuning)
            # and is multiplied in half precision where the base is in it.
            autocast_dtype={"bf16": "bfloat16", "fp16": "float16"}.get(precision),
            batch_setting=token_budget,
            on_progress=on_progress,
            batch_size=PLAIN_BATCH_SIZE,
            # Logits stay what the model computes. A softmax in bf16 would round log-likelihoods of
            # 64 to 128 nats to multiples of 0.5, and tie answers that the model tells apart.
            softmax_dtype="float32",
        )
        # Resolved once: HFLM looks it up in the configuration several times per request.
        self._max_length = self.max_length
        self._encodings = EncodingCache() if encodings is None else encodings
        # The answers of a question follow each other: their context is encoded once.
        self._encode = lru_cache(maxsize=2)(super().tok_encode)
        self._task_names: list[str] = []
        self._refusal = reason_against(model)

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[Answer]:
        """(Log-likelihood in nats, whether greedy) of each answer, as `HFLM` gives it."""
        self._task_names = [request.task_name or "" for request in requests]
        answers: list[Answer] = super().loglikelihood(requests, disable_tqdm=True)
        return answers

    def tok_encode(self, string: str, *args: Any, **kwargs: Any) -> list[int]:
        """The token ids of a text, as `HFLM` gives them."""
        return self._encode(string, *args, **kwargs)

    def _encode_pair(self, context: str, continuation: str) -> Encoding:
        return self._encodings.get((context, continuation), super()._encode_pair)

    def _loglikelihood_tokens(
        self, requests: list[Any], disable_tqdm: bool = True, override_bs: int | None = None
    ) -> list[Answer]:
        if override_bs is not None:  # a batch of rolling windows
            return list(super()._loglikelihood_tokens(requests, True, override_bs))
        numbers: dict[Query, list[int]] = {}
        for number, (name, request) in enumerate(zip(self._task_names, requests, strict=True)):
            numbers.setdefault(self._query(name, *request), []).append(number)
        answers: list[Answer] = [(math.nan, False)] * len(requests)

        def on_done(query: Query, value: float, greedy: bool) -> None:
            for number in numbers[query]:
                answers[number] = value, greedy
                self.count_done(len(requests))

        self._score(list(numbers), on_done)
        return answers

    def _query(
        self, name: str, pair: tuple[str, str], context: list[int], answer: list[int]
    ) -> Query:
        """A request as the model gets it, cut to its positions as HFLM cuts it."""
        if not 0 < len(answer) <= self.max_length:
            raise EvaluationError(
                f"{name}: the answer {pair[1][:60]!r} is {len(answer)} tokens long and the "
                f"model takes 1 to {self.max_length}"
            )
        # The last token is never fed, so one more than the model's length still fits.
        tokens = (context + answer)[-(self.max_length + 1) :]
        self.truncated[name] += len(context) + len(answer) > len(tokens)
        return Query(fed=tuple(tokens[:-1]), targets=tuple(answer))

    def _score(self, queries: list[Query], on_done: Done) -> None:
        """Scores queries over their trie, and one by one those that cannot be."""
        left = dict.fromkeys(queries)

        def done(query: Query, value: float, greedy: bool) -> None:
            del left[query]
            on_done(query, value, greedy)

        window = attention_window(self.model)
        if self._refusal is None:
            fitting = [q for q in queries if window is None or len(q.fed) <= window]
            try:
                effective = score_queries(
                    TrieForward(self.model, self.autocast),
                    fitting,
                    self.batching.effective,
                    done,
                    before=lambda run: check_sharing(
                        self.model,
                        run,
                        lambda query: self._answer_plainly([query], 1)[0][0],
                        self.mixed_precision_dtype,
                    ),
                )
                self.batching = replace(self.batching, effective=effective)
            except WrongResultError as fault:
                self._refusal = str(fault)
        if left:
            longer = f"requests are longer than the attention's window of {window} tokens"
            reason = self._refusal or f"{len(left)} {longer}"
            logger.warning("%s: %s", self.fallback_note, reason)
            self.batching = replace(self.batching, fallback=reason)
            self._score_plainly(list(left), done)

    def _score_plainly(self, queries: list[Query], on_done: Done) -> None:
        """Scores queries as HFLM does."""
        # By length of the answer, for the case that the class's docstring tells; then the longest
        # first, so that memory runs out early.
        queries.sort(key=lambda query: (len(query.targets), -len(query.fed), query.fed))
        rounds = deque(
            some[start : start + PLAIN_ROUND]
            for _, alike in groupby(queries, key=lambda query: len(query.targets))
            for some in [list(alike)]
            for start in range(0, len(some), PLAIN_ROUND)
        )

        def score_rest(batch_size: int) -> None:
            while rounds:
                answers = self._answer_plainly(rounds[0], batch_size)
                for query, answer in zip(rounds.popleft(), answers, strict=True):
                    on_done(query, *answer)

        halve_until_it_fits(
            score_rest,
            PLAIN_BATCH_SIZE,
            device=str(self.device),
            unit="requests",
            one="score one question",
        )

    def _answer_plainly(self, queries: Sequence[Query], batch_size: int) -> list[Answer]:
        requests = [(None, *query.split()) for query in queries]
        return self._loglikelihood_tokens(requests, override_bs=batch_size)
