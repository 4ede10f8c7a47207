"""HFLM subclass for an in-memory model, with prefix caching across requests."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import groupby
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from harness.errors import EvaluationError
from harness.evaluation.generation import GenerationState, generate_texts
from harness.evaluation.lm_eval_session import InMemoryHFLM, OnProgress
from harness.evaluation.memory import halve_until_it_fits
from harness.evaluation.pictures import EncodePictures, without_pictures
from harness.evaluation.prefix_trie.checks import check_sharing, static_refusal
from harness.evaluation.prefix_trie.forward import TrieForward
from harness.evaluation.prefix_trie.scoring import OnDone, score_requests
from harness.evaluation.prefix_trie.trie import Request
from harness.evaluation.task_index import FORGETTING
from harness.evaluation.tasks import DEFAULT_TOKEN_BUDGET
from harness.evaluation.trial import WrongResultError, attention_window
from harness.models.advice import ADVICE
from harness.models.kept import weights_stay
from harness.models.positions import pass_dependence

Encoding = tuple[list[int], list[int]]
Answer = tuple[float, bool]
"""Log-likelihood in nats, and whether the answer is what the model would say greedily."""

MAX_KEPT_TOKENS = 4_000_000
"""Encodings are kept for the next model up to so many tokens in all (about 100 MB)."""
UNSHARED_BATCH_SIZE = 8
"""Requests of a forward pass where HFLM scores without prefix sharing."""
UNSHARED_ROUND = 256
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
    """HFLM for an in-memory model, which computes prefixes that requests share once.

    Log-likelihoods are those of `HFLM`, rolling ones too; so are generated texts (see
    `generation`). One case differs: of requests that have the same text and split it at different
    positions, lm-eval 0.4.13 scores all but the longest answer at wrong positions (with its
    `logits_cache`, the default); here each gets what `HFLM` gives it alone.

    Args, beside those of `InMemoryHFLM`:
        token_budget: tokens of a forward pass, padding included.
        encodings: of earlier requests under the same tokenizer.
        temperature: of generated responses; None for what each task says itself.
        encode_pictures: gives features of distinct pictures; None: the model is shown none.

    Attributes, beside those of `InMemoryHFLM`:
        requests: those that were scored last, by lm-eval's name of their task.
        answers: theirs.
        generation: what is kept of generated responses.
    """

    # "Request by request", as stored notes say: by HFLM in batches, without prefix sharing.
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
        temperature: float | None = None,
        encode_pictures: EncodePictures | None = None,
    ) -> None:
        super().__init__(
            model,
            tokenizer,
            encode_pictures=encode_pictures,
            precision=precision,
            batch_setting=token_budget,
            on_progress=on_progress,
            batch_size=UNSHARED_BATCH_SIZE,
            # Logits stay what the model computes, and the softmax is in fp32: bf16 spacing at
            # 64-128 is 0.5, which would tie distinct answers.
            softmax_dtype="float32",
        )
        # Resolved once: HFLM looks it up in the configuration several times per request.
        self._max_length = self.max_length
        self._encodings = EncodingCache() if encodings is None else encodings
        # The answers of a question follow each other: their context is encoded once. HFLM slices
        # the list and never changes it, so all may share it.
        self._encode = lru_cache(maxsize=2)(super().tok_encode)
        self._task_names: list[str] = []
        self._picture_names: list[str | None] = []
        self._shown: str | None = None
        """The picture of all rows of a pass of `HFLM`."""
        self.requests: dict[str, list[Request]] = {}
        self.answers: dict[Request, Answer] = {}
        self.generation = GenerationState(temperature)
        self._refusal = static_refusal(model)
        self._vocab_size: int = model.config.get_text_config().vocab_size
        self._dependence = pass_dependence(model)
        self._span, self._span_reason = attention_window(model), "the attention's window"
        if self._dependence is not None:
            reach = self._dependence.span
            if self._span is None or reach < self._span:
                self._span, self._span_reason = reach, "the rotary frequencies' range"

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[Answer]:
        """(Log-likelihood in nats, whether greedy) of each answer, as `HFLM` gives it."""
        # HFLM calls `_loglikelihood_tokens` once, with all requests in order, without their tasks.
        self._task_names = [request.task_name or "" for request in requests]
        self._picture_names = self.pictures.names(requests)
        texts = without_pictures(requests)
        answers: list[Answer] = super().loglikelihood(texts, disable_tqdm=True)
        return answers

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = True
    ) -> list[float]:
        """The log-likelihood of each text in nats, window by window as `HFLM` cuts it."""
        windows: list[tuple[int, Request]] = []
        pictures = self.pictures.names(requests)
        for number, (instance, picture) in enumerate(zip(requests, pictures, strict=True)):
            name = instance.task_name or ""
            tokens = self.tok_encode(instance.args[0])
            if name in FORGETTING and tokens[:1] == [self.prefix_token_id]:
                # `HFLM` puts the prefix before a BOS of the tokenizer: the likelihood of a second
                # BOS is none of the text, and training moves it.
                tokens = tokens[1:]
            rolled = get_rolling_token_windows(
                token_list=tokens,
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            pairs = map(make_disjoint_window, rolled)
            of_it = [self._request(name, picture, ("", ""), *pair) for pair in pairs]
            windows += [(number, request) for request in of_it]
            self.requests.setdefault(name, []).extend(of_it)
        found: dict[Request, float] = {}

        def on_done(request: Request, value: float, greedy: bool) -> None:
            found[request] = value
            self.answers[request] = value, greedy
            self.count_done(len(distinct))

        distinct = list(dict.fromkeys(request for _, request in windows))
        self.score(distinct, on_done)
        totals = [0.0] * len(requests)
        for number, request in windows:
            totals[number] += found[request]
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        """The response to each request, as `HFLM` gives it alone."""
        return generate_texts(self, requests, self.generation)

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
        numbers: dict[Request, list[int]] = {}
        self.requests |= {name: [] for name in self._task_names}
        asked = zip(self._task_names, self._picture_names, requests, strict=True)
        for number, (name, picture, pair) in enumerate(asked):
            request = self._request(name, picture, *pair)
            numbers.setdefault(request, []).append(number)
            self.requests[name].append(request)
        answers: list[Answer] = [(math.nan, False)] * len(requests)

        def on_done(request: Request, value: float, greedy: bool) -> None:
            self.answers[request] = value, greedy
            for number in numbers[request]:
                answers[number] = value, greedy
                self.count_done(len(requests))

        self.score(list(numbers), on_done)
        return answers

    def _request(
        self,
        name: str,
        picture: str | None,
        pair: tuple[str, str],
        context: list[int],
        answer: list[int],
    ) -> Request:
        """Token ids of a request, cut to the model's length as HFLM cuts them."""
        if not 0 < len(answer) <= self.max_length:
            raise EvaluationError(
                f"{name}: the answer {pair[1][:60]!r} is {len(answer)} tokens long and the "
                f"model takes 1 to {self.max_length}"
            )
        if max(*context, *answer, 0) >= self._vocab_size:
            raise EvaluationError(
                f"{name}: {pair[1][:60]!r} or its context spells a token outside of the model's "
                f"vocabulary of {self._vocab_size}; {ADVICE['token outside']}"
            )
        # The last token is never fed, so one more than the model's length still fits.
        tokens = (context + answer)[-(self.max_length + 1) :]
        self.truncated[name] += len(context) + len(answer) > len(tokens)
        return Request(tuple(tokens[:-1]), tuple(answer), picture)

    def score_alone(self, request: Request) -> float:
        """The log-likelihood of one request in a forward pass of its own, in nats."""
        return self._answer_unshared([request], 1)[0][0]

    def score(self, requests: list[Request], on_done: OnDone) -> None:
        """Scores requests with shared prefixes, and by HFLM those that cannot be."""
        with weights_stay():
            self._score(requests, on_done)

    def _score(self, requests: list[Request], on_done: OnDone) -> None:
        left = dict.fromkeys(requests)

        def done(request: Request, value: float, greedy: bool) -> None:
            del left[request]
            on_done(request, value, greedy)

        window = self._span
        if self._refusal is None:
            fitting = [one for one in requests if window is None or len(one.input_ids) <= window]
            try:
                effective = score_requests(
                    TrieForward(self.model, self.autocast, self.pictures.of_rows),
                    fitting,
                    self.batching.effective,
                    done,
                    on_attempt=lambda run: check_sharing(
                        self.model,
                        run,
                        self.score_alone,
                        self.mixed_precision_dtype,
                    ),
                )
                self.batching = replace(self.batching, effective=effective)
            except WrongResultError as fault:
                self._refusal = str(fault)
        if left:
            longer = f"requests are longer than {self._span_reason} of {window} tokens"
            reason = self._refusal or f"{len(left)} {longer}"
            logger.warning("%s: %s", self.fallback_note, reason)
            self.batching = replace(self.batching, fallback=reason)
            self._score_unshared(list(left), done)

    def _score_unshared(self, requests: list[Request], on_done: OnDone) -> None:
        """Scores requests by HFLM, without prefix sharing."""
        # By length of the answer, for the case that the class's docstring tells; then by picture;
        # then the longest first, so that memory runs out early.
        requests.sort(
            key=lambda one: (
                len(one.continuation_ids),
                one.picture or "",
                -len(one.input_ids),
                one.input_ids,
            )
        )
        rounds: deque[list[Request]] = deque()
        for _, group in groupby(requests, key=self._alike):
            alike = list(group)
            for start in range(0, len(alike), UNSHARED_ROUND):
                rounds.append(alike[start : start + UNSHARED_ROUND])

        def score_rest(batch_size: int) -> None:
            while rounds:
                answers = self._answer_unshared(rounds[0], batch_size)
                for request, answer in zip(rounds.popleft(), answers, strict=True):
                    on_done(request, *answer)

        halve_until_it_fits(
            score_rest,
            UNSHARED_BATCH_SIZE,
            device=str(self.device),
            unit="requests",
            one="score one question",
        )

    def _alike(self, request: Request) -> tuple[int, str | None, int]:
        """The same for requests that HFLM may score in one batch."""
        # Padding behind a request takes positions too.
        length = 0 if self._dependence is None else len(request.input_ids)
        return len(request.continuation_ids), request.picture, length

    def _answer_unshared(self, requests: Sequence[Request], batch_size: int) -> list[Answer]:
        """The answers to requests under one picture, or none."""
        tokens = [(None, *request.split()) for request in requests]
        (self._shown,) = {request.picture for request in requests}
        return self._loglikelihood_tokens(tokens, override_bs=batch_size)

    def _model_call(self, inps: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        with self.pictures.showing([self._shown] * len(inps)):
            return super()._model_call(inps, *args, **kwargs)
