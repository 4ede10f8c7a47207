"""Generates responses to many prompts: a pool of sequences that is refilled as they end."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from harness.errors import EvaluationError
from harness.evaluation.benchmark import Decoding
from harness.evaluation.memory import halve_until_it_fits
from harness.evaluation.paper.cache_check import plain_logits
from harness.evaluation.paper.pool import (
    Pool,
    Prefilled,
    Prefix,
    common_prefix,
    compute_prefix,
    prefill_prompts,
)
from harness.evaluation.paper.sampling import (
    NOT_A_NUMBER,
    choose_tokens,
    only_likeliest,
    random_stream,
)
from harness.evaluation.prefix_trie.forward import PicturesOf, no_pictures
from harness.models.numbers import overflow_cause

TOKENS_AT_ONCE = 4096
"""Prompt tokens of one forward pass, padding included."""
PADDING, PADDING_SHARE = 64, 8
"""Prompts are computed side by side with at most so much padding, and one more in so many tokens:
less would cost more passes than it saves."""
REFILL_SHARE = 4
"""The pool is refilled when one in so many of its slots is free."""
DROP_SHARE = 8
"""Ended sequences leave when they are one in so many; until then they cost less than copying."""


@dataclass(frozen=True)
class Prompt:
    """What is to be continued."""

    tokens: tuple[int, ...]
    key: str
    """What its random numbers depend on, beside the seed."""
    group: str
    """Prompts of one group begin alike."""
    picture: str | None = None
    """SHA-256 of the picture that the model is shown with it."""


@dataclass(frozen=True)
class Response:
    """What followed a prompt."""

    tokens: tuple[int, ...]
    """Without the end-of-text token."""
    ended: bool
    """Whether it ended by itself, not at the largest number of tokens."""
    last: int | None = field(default=None, compare=False)
    """The token that ended it; None where that is one of `tokens`, or none did."""


OnDone = Callable[[int, Response], None]
"""Called with each prompt's number and response, once."""


@dataclass(eq=False)
class _Sequence:
    number: int
    prompt: Prompt
    stream: Random
    tokens: list[int] = field(default_factory=list)


_Rows = list[_Sequence | None]
"""Sequences side by side; None for one that has ended."""


def _going(rows: _Rows) -> tuple[list[int], list[_Sequence]]:
    """The numbers of the rows that have not ended, and their sequences."""
    numbered = [(number, one) for number, one in enumerate(rows) if one is not None]
    return [number for number, _ in numbered], [one for _, one in numbered]


@dataclass
class Generator:
    """Generates with one model.

    The same seed gives the same text for any number of rows and any order of prompts, as far as the
    model's arithmetic does: the random numbers belong to the prompt. In another composition of
    the batch the last bits of logits differ, and a draw that falls within that of a boundary
    between two tokens may go the other way.

    Args:
        model: a causal language model in evaluation mode, under the precision it is to run in.
        decoding: temperature, top-p, seed, and the largest number of new tokens.
        end_tokens: any of them ends a response.
        num_rows: sequences side by side.
        reason_against_cache: why the model is to run without kept keys and values; None to keep.
        top_k: likeliest tokens that are drawn from; None for all.
        stop: whether a response's tokens so far end it.
        pictures_of: the pictures of a pass.
    """

    model: Any
    decoding: Decoding
    end_tokens: frozenset[int]
    num_rows: int
    reason_against_cache: str | None = None
    top_k: int | None = None
    stop: Callable[[Sequence[int]], bool] | None = None
    pictures_of: PicturesOf = no_pictures

    def generate(self, prompts: Sequence[Prompt], on_done: OnDone) -> None:
        """Generates a response to each prompt.

        Where memory runs out, `num_rows` is halved; what is finished by then stays.

        Raises:
            EvaluationError: the memory is too small for one response, or the model's logits are
                not numbers.
        """
        left = dict(enumerate(prompts))

        def done(number: int, response: Response) -> None:
            del left[number]
            on_done(number, response)

        run = self._run_plainly if self.reason_against_cache else self._run_pool

        def generate_rest(num_rows: int) -> None:
            self.num_rows = num_rows
            run(left, done)

        halve_until_it_fits(
            generate_rest,
            self.num_rows,
            device=str(self.model.device),
            unit="responses",
            one="generate one response",
        )

    def _run_pool(self, left: dict[int, Prompt], on_done: OnDone) -> None:
        queue = _Queue(self.model, self._sequences(left), self.pictures_of)
        pool, active = Pool(self.model, self.pictures_of), _Rows()
        while queue or any(active):
            free = self.num_rows - len(active) + active.count(None)
            if queue and free * REFILL_SHARE >= self.num_rows:
                active = self._admit(queue, pool, active, on_done)
            elif active.count(None) * DROP_SHARE >= len(active):
                kept, going = _going(active)
                pool.arrange(kept)
                active = [*going]
            if any(active):
                logits = pool.step([one.tokens[-1] if one else 0 for one in active])
                active = self._choose(logits, active, on_done)

    def _admit(self, queue: _Queue, pool: Pool, active: _Rows, on_done: OnDone) -> _Rows:
        """The pool's sequences after new ones have joined, with their first token."""
        kept, going = _going(active)
        joining: list[tuple[Prefilled, list[int]]] = []
        while queue and len(going) < self.num_rows:
            sequences, prefix = queue.take(self.num_rows - len(going))
            tokens = [one.prompt.tokens for one in sequences]
            pictures = [one.prompt.picture for one in sequences]
            prefilled = prefill_prompts(self.model, tokens, prefix, pictures, self.pictures_of)
            chosen, started = _going(self._choose(prefilled.logits_BV, sequences, on_done))
            joining.append((prefilled, chosen))
            going += started
        pool.arrange(kept, joining)
        return [*going]

    def _choose(self, logits: Any, active: Sequence[_Sequence | None], on_done: OnDone) -> _Rows:
        """Gives each sequence its next token; returns None for those that end."""
        draws = [0.0 if one is None else one.stream.random() for one in active]
        if self.top_k is not None and self.decoding.temperature > 0:
            logits = only_likeliest(logits, self.top_k)
        chosen = choose_tokens(logits, self.decoding, draws)
        going = [*active]
        for row, (one, token) in enumerate(zip(active, chosen, strict=True)):
            if one is None:
                continue
            if token == NOT_A_NUMBER:
                raise EvaluationError(
                    f"{one.prompt.group}: the model's logits are not numbers: "
                    f"{overflow_cause(self.model)}"
                )
            last = token if token in self.end_tokens else None
            if last is None:
                one.tokens.append(token)
            ended = last is not None or (self.stop is not None and self.stop(one.tokens))
            if ended or len(one.tokens) == self.decoding.max_new_tokens:
                on_done(one.number, Response(tuple(one.tokens), ended, last))
                going[row] = None
        return going

    def _run_plainly(self, left: dict[int, Prompt], on_done: OnDone) -> None:
        by_length = defaultdict(list)
        for one in self._sequences(left):
            by_length[len(one.prompt.tokens)].append(one)
        for _, alike in sorted(by_length.items(), reverse=True):
            for start in range(0, len(alike), self.num_rows):
                active = alike[start : start + self.num_rows]
                while active:
                    rows = [[*one.prompt.tokens, *one.tokens] for one in active]
                    pictures = self.pictures_of([one.prompt.picture for one in active])
                    logits = plain_logits(self.model, rows, pictures)
                    active = _going(self._choose(logits, active, on_done))[1]

    def _sequences(self, left: dict[int, Prompt]) -> list[_Sequence]:
        return [
            _Sequence(number, prompt, random_stream(self.decoding.seed, prompt.key))
            for number, prompt in left.items()
        ]


class _Queue:
    """Sequences that wait, group by group, the longest first; computes each group's prefix.

    Those with a picture are groups of their own.
    """

    def __init__(self, model: Any, sequences: Sequence[_Sequence], pictures_of: PicturesOf) -> None:
        self._model, self._pictures_of = model, pictures_of
        groups: dict[tuple[str, bool], list[_Sequence]] = defaultdict(list)
        for one in sequences:
            groups[one.prompt.group, one.prompt.picture is not None].append(one)
        for group in groups.values():
            group.sort(key=lambda one: (-len(one.prompt.tokens), one.number))
        self._groups = deque(deque(group) for group in groups.values())
        self._prefix: Prefix | None = None

    def __bool__(self) -> bool:
        return bool(self._groups)

    def take(self, count: int) -> tuple[list[_Sequence], Prefix]:
        """The next sequences of one group, at most `count` and TOKENS_AT_ONCE."""
        group = self._groups[0]
        if self._prefix is None:
            pictures = {one.prompt.picture for one in group}
            # Under several pictures nothing is in common.
            alike = group if len(pictures) == 1 else ()
            tokens = common_prefix([one.prompt.tokens for one in alike])
            self._prefix = compute_prefix(self._model, tokens, self._pictures_of([*pictures][:1]))
        prefix = self._prefix
        width = len(group[0].prompt.tokens) - len(prefix.tokens)
        count = min(count, len(group), max(1, TOKENS_AT_ONCE // width))
        taken, padding = [group.popleft()], 0
        while len(taken) < count:
            padding += width - (len(group[0].prompt.tokens) - len(prefix.tokens))
            if padding > PADDING + width * (len(taken) + 1) // PADDING_SHARE:
                break
            taken.append(group.popleft())
        if not group:
            self._groups.popleft()
            self._prefix = None
        return taken, prefix
