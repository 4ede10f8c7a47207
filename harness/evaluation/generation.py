"""Generates responses as lm-eval's HFLM does, in a batch that is refilled as they end.

The text of each is what `HFLM.generate_until` gives for it alone (batch size 1): the likeliest
tokens where the task asks for them, else tokens drawn by random numbers of the item's own.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import (
    handle_stop_sequences,
    has_bos_prefix,
    normalize_gen_kwargs,
    postprocess_generated_text,
)

from harness.errors import EvaluationError
from harness.evaluation.benchmark import Decoding
from harness.evaluation.lm_eval_session import InMemoryHFLM
from harness.evaluation.paper.cache_check import reason_against_cache
from harness.evaluation.paper.generator import Generator, Prompt, Response
from harness.evaluation.paper.sampling import random_stream
from harness.evaluation.pictures import without_pictures
from harness.evaluation.tasks import DEFAULT_NUM_ROWS
from harness.models.kept import weights_stay

logger = logging.getLogger(__name__)

PLAIN_ROWS = 8
"""Responses side by side where keys and values are not kept."""
KNOWN = {"until", "max_gen_toks", "do_sample", "temperature", "top_p", "top_k"}
"""Settings of a task's generation that are done here; with others transformers generates."""
CHANGES_LOGITS: dict[str, tuple[Any, ...]] = {
    "repetition_penalty": (None, 1.0),
    "no_repeat_ngram_size": (None, 0),
    "encoder_repetition_penalty": (None, 1.0),
    "encoder_no_repeat_ngram_size": (None, 0),
    "bad_words_ids": (None,),
    "sequence_bias": (None,),
    "suppress_tokens": (None,),
    "begin_suppress_tokens": (None,),
    "forced_bos_token_id": (None,),
    "forced_eos_token_id": (None,),
    "exponential_decay_length_penalty": (None,),
    "min_length": (None, 0),
    "min_new_tokens": (None,),
    "guidance_scale": (None, 1.0),
    "num_beams": (None, 1),
    "penalty_alpha": (None, 0.0),
    "watermarking_config": (None,),
}
"""Settings of a checkpoint's generation_config.json that change even the likeliest tokens, with the
values that do not."""
CHANGES_DRAWS: dict[str, tuple[Any, ...]] = {
    "min_p": (None, 0.0),
    "typical_p": (None, 1.0),
    "epsilon_cutoff": (None, 0.0),
    "eta_cutoff": (None, 0.0),
    "top_h": (None,),
}
"""The same of what is drawn."""
DEFAULT_TOP_K = 50
"""transformers' own, where neither the task nor the checkpoint says."""
SEED = 1234
"""lm-eval's seed of torch."""


@dataclass(frozen=True)
class Generation:
    """What is kept of a response beside its text."""

    num_tokens: int
    ended: bool
    """By itself or with a stop string, not at the largest number of tokens."""


@dataclass
class GenerationState:
    """What a model class keeps of the responses that it has generated."""

    temperature: float | None = None
    """As the grid asks for it; None for what each task says itself."""
    draw: int = 0
    """Added to the seed of what is sampled."""
    num_rows: int = DEFAULT_NUM_ROWS
    """Responses that are generated side by side; fewer once memory ran out."""
    responses: dict[tuple[str, int, int], Generation] = field(default_factory=dict)
    """By task, item, and number of the repeat."""
    shortened: tuple[int, int] | None = None
    """New tokens that a model has room for, and those that a task asks for, where it has less."""


@dataclass(frozen=True)
class Settings:
    """How a request's response is generated."""

    stops: tuple[str, ...]
    decoding: Decoding
    top_k: int | None
    """Likeliest tokens that are drawn from; None for all."""
    asked: int
    """New tokens that the task asks for; fewer fit into a short model."""


def generate_texts(
    scorer: InMemoryHFLM, requests: Sequence[Instance], state: GenerationState
) -> list[str]:
    """The response to each request of `generate_until`, up to the first stop string.

    Raises:
        EvaluationError: the tokenizer has no EOS, the memory is too small for one response, or the
            model's logits are not numbers.
    """
    if scorer.tokenizer.eos_token_id is None:
        raise EvaluationError(
            f"{scorer.tokenizer.name_or_path}: the tokenizer has no EOS token, so that no response "
            "would end; set eos_token in its tokenizer_config.json"
        )
    texts = [""] * len(requests)
    alike: dict[Settings | str, list[int]] = defaultdict(list)
    for number, request in enumerate(requests):
        alike[_settings(scorer, request, state.temperature)].append(number)
    repeats: dict[tuple[str, int], int] = defaultdict(int)
    names = []
    for request in requests:
        item = request.task_name or "", int(request.doc_id or 0)
        names.append((*item, repeats[item]))
        repeats[item] += 1
    pictures = scorer.pictures.names(requests)
    for settings, numbers in alike.items():
        batch = _Batch(scorer, state, requests, names, pictures, numbers, texts)
        if isinstance(settings, str):
            batch.by_transformers(settings)
        else:
            batch.by_pool(settings)
    return texts


def _settings(scorer: InMemoryHFLM, request: Instance, temperature: float | None) -> Settings | str:
    """How a response is generated; in words, why transformers is to generate it."""
    given = _with_temperature(request, temperature).args[1]
    kwargs: dict[str, Any] = dict(normalize_gen_kwargs(given, scorer.max_gen_toks))
    config = scorer.model.generation_config
    sampled = bool(kwargs.get("do_sample"))
    if unknown := sorted(set(kwargs) - KNOWN):
        return f"the task sets {', '.join(unknown)}"
    changed = CHANGES_LOGITS | (CHANGES_DRAWS if sampled else {})
    for name, neutral in changed.items():
        if getattr(config, name, None) not in neutral:
            return f"the checkpoint's generation_config.json sets {name}"
    own = float(kwargs.get("temperature") or 0.0) if sampled else 0.0
    if sampled and own == 0.0:
        return "the task samples at temperature 0"
    top_p = kwargs.get("top_p", config.top_p)
    top_k = kwargs.get("top_k", config.top_k)
    top_k = DEFAULT_TOP_K if top_k is None else top_k
    asked = kwargs["max_gen_toks"]
    # HFLM refuses a model that has no room for so many; here half of it is for the prompt.
    most = asked if asked < scorer.max_length else scorer.max_length // 2
    eos = scorer.tok_decode([scorer.eot_token_id], skip_special_tokens=False)
    stops = tuple(handle_stop_sequences(list(kwargs["until"]), eos=eos))
    decoding = Decoding(own, 1.0 if top_p is None else float(top_p), most, SEED)
    return Settings(stops, decoding, int(top_k) or None if sampled else None, asked)


def _with_temperature(request: Instance, temperature: float | None) -> Instance:
    """A request at the temperature that the grid asks for, if it asks for one."""
    if temperature is None:
        return request
    own = {"temperature": temperature, "do_sample": temperature > 0}
    text, given, *others = request.args
    return replace(request, arguments=(text, {**given, **own}, *others))


class _Batch:
    """Requests that are generated alike; their texts are put into place."""

    def __init__(
        self,
        scorer: InMemoryHFLM,
        state: GenerationState,
        requests: Sequence[Instance],
        names: Sequence[tuple[str, int, int]],
        pictures: Sequence[str | None],
        numbers: Sequence[int],
        texts: list[str],
    ) -> None:
        self._scorer, self._state = scorer, state
        self._requests, self._names, self._pictures = requests, names, pictures
        self._numbers, self._texts = numbers, texts

    def by_pool(self, settings: Settings) -> None:
        """Generates side by side, over kept keys and values."""
        scorer = self._scorer
        decoding = replace(settings.decoding, seed=SEED + self._state.draw)
        longest = scorer.max_length - decoding.max_new_tokens
        prompts = [self._prompt(number, longest) for number in self._numbers]
        stop = StopStrings(scorer.tokenizer, settings.stops)

        def on_done(place: int, response: Response) -> None:
            tokens = [*response.tokens, *([] if response.last is None else [response.last])]
            text = scorer.tok_decode(tokens)
            text = postprocess_generated_text(text, list(settings.stops), None)
            self._keep(self._numbers[place], text, len(response.tokens), response.ended)

        if decoding.max_new_tokens < settings.asked:
            self._state.shortened = decoding.max_new_tokens, settings.asked
        with scorer.autocast(), weights_stay():
            refusal = reason_against_cache(
                scorer.model,
                [prompt.tokens for prompt in prompts],
                scorer.mixed_precision_dtype,
                max_new_tokens=decoding.max_new_tokens,
                pictures=[prompt.picture for prompt in prompts],
                pictures_of=scorer.pictures.of_rows,
            )
            generator = Generator(
                scorer.model,
                decoding,
                end_tokens=end_tokens(scorer.model, scorer.tokenizer),
                num_rows=PLAIN_ROWS if refusal else self._state.num_rows,
                reason_against_cache=refusal,
                top_k=settings.top_k,
                stop=stop,
                pictures_of=scorer.pictures.of_rows,
            )
            generator.generate(prompts, on_done)
        if refusal:
            scorer.batching = replace(scorer.batching, fallback=refusal)
        else:
            self._state.num_rows = generator.num_rows

    def by_transformers(self, reason: str) -> None:
        """Generates one by one, by HFLM and with transformers' `generate`."""
        scorer = self._scorer
        logger.warning("generated one by one by transformers: %s", reason)
        scorer.batching = replace(scorer.batching, fallback=reason)
        for number in self._numbers:
            stream = random_stream(SEED + self._state.draw, self._key(number))
            (alone,) = without_pictures([self._requests[number]])
            request = _with_temperature(alone, self._state.temperature)
            shown = [self._pictures[number]] * _num_beams(scorer, request)
            with (
                torch.random.fork_rng(devices=_devices(scorer.device)),
                scorer.pictures.showing(shown),
            ):
                torch.manual_seed(stream.getrandbits(63))
                (text,) = HFLM.generate_until(scorer, [request], disable_tqdm=True)
            size = len(scorer.tokenizer.encode(text, add_special_tokens=False))
            self._keep(number, text, size, True)

    def _keep(self, number: int, text: str, num_tokens: int, ended: bool) -> None:
        self._texts[number] = text
        self._state.responses[self._names[number]] = Generation(num_tokens, ended)
        self._scorer.count_done(len(self._requests))

    def _key(self, number: int) -> str:
        """What an item's random numbers depend on."""
        text, repeat = self._requests[number].args[0], self._names[number][2]
        return text if repeat == 0 else f"{repeat}/{text}"

    def _prompt(self, number: int, longest: int) -> Prompt:
        """A request's tokens, cut to the model's length as HFLM cuts them."""
        scorer, request = self._scorer, self._requests[number]
        text, name = request.args[0], request.task_name or ""
        special: dict[str, bool] = {}
        if has_bos_prefix(text, scorer.tokenizer.bos_token):
            special = {"add_special_tokens": False}
        tokens = tuple(scorer.tokenizer(text, verbose=False, **special)["input_ids"])
        if not tokens:
            tokens = (scorer.prefix_token_id,)
        scorer.truncated[name] += len(tokens) > longest
        group = name if len(tokens) <= longest else f"{name} (cut)"
        return Prompt(tokens[-longest:], self._key(number), group, self._pictures[number])


class StopStrings:
    """Whether a response holds a stop string, told from its last tokens as lm-eval's
    MultiTokenEOSCriteria does: two tokens more than the string takes by itself.
    """

    def __init__(self, tokenizer: Any, stops: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        sizes = (len(tokenizer.encode(stop, add_special_tokens=False)) + 2 for stop in stops)
        self._stops = list(zip(stops, sizes, strict=True))

    def __call__(self, tokens: Sequence[int]) -> bool:
        """Whether these tokens of a response end it."""
        tails = [list(tokens[-size:]) for _, size in self._stops]
        texts = self._tokenizer.batch_decode(tails)
        return any(stop in text for (stop, _), text in zip(self._stops, texts, strict=True))


def end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """The tokens that end a response: the checkpoint's, and the tokenizer's EOS."""
    own = model.generation_config.eos_token_id
    listed = own if isinstance(own, list) else [own]
    return frozenset(int(one) for one in (*listed, tokenizer.eos_token_id) if one is not None)


def _num_beams(scorer: InMemoryHFLM, request: Instance) -> int:
    """Rows of a pass in which transformers generates one response."""
    own = getattr(scorer.model.generation_config, "num_beams", None)
    return int(request.args[1].get("num_beams") or own or 1)


def _devices(device: torch.device) -> list[int]:
    return [torch.cuda.current_device()] if device.type == "cuda" else []
