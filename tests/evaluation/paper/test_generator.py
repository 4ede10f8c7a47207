"""The law: a response is what the model alone would say, whatever is generated beside it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from harness.errors import EvaluationError
from harness.evaluation.benchmark import Decoding
from harness.evaluation.paper import cache_check
from harness.evaluation.paper import generator as generator_module
from harness.evaluation.paper import pool as pool_module
from harness.evaluation.paper.cache_check import reason_against_cache
from harness.evaluation.paper.generator import Generator, Prompt, Response
from harness.evaluation.paper.pool import Pool, common_prefix
from harness.evaluation.paper.sampling import choose_tokens, random_stream
from harness.methods import METHODS
from tests.evaluation.test_scorer import family

END = 2
GREEDY = Decoding(temperature=0.0, top_p=1.0, max_new_tokens=24, seed=1)
SAMPLED = Decoding(temperature=0.7, top_p=0.9, max_new_tokens=24, seed=1)


def some_prompts(vocabulary: int, count: int = 12, longest: int = 40) -> list[Prompt]:
    """Two groups, each with a beginning of its own, and one prompt that shares nothing."""
    draw = random.Random(4)

    def tokens(length: int) -> tuple[int, ...]:
        return tuple(draw.randrange(3, vocabulary) for _ in range(length))

    begin = {"first": tokens(9), "second": tokens(21)}
    prompts = []
    for number in range(count):
        group = ("first", "second")[number % 2]
        prompts.append(Prompt(begin[group] + tokens(draw.randint(1, longest)), f"p{number}", group))
    return [*prompts, Prompt(tokens(3), "alone", "third")]


def generate(model: Any, prompts: Sequence[Prompt], decoding: Decoding, **settings: Any) -> list:
    found: dict[int, Response] = {}
    settings = {"num_rows": 64, "end_tokens": frozenset([END])} | settings

    def on_done(number: int, response: Response) -> None:
        assert number not in found
        found[number] = response

    Generator(model.eval(), decoding, **settings).generate(prompts, on_done)
    assert sorted(found) == list(range(len(prompts)))
    return [found[number] for number in range(len(prompts))]


@torch.no_grad()
def alone(model: Any, prompt: Prompt, decoding: Decoding) -> Response:
    """One prompt, the whole sequence computed anew for each token."""
    stream, tokens = random_stream(decoding.seed, prompt.key), []
    while len(tokens) < decoding.max_new_tokens:
        ids = torch.tensor([[*prompt.tokens, *tokens]])
        logits = model(input_ids=ids, use_cache=False).logits[:, -1]
        (token,) = choose_tokens(logits, decoding, [stream.random()])
        if token == END:
            return Response(tuple(tokens), True)
        tokens.append(token)
    return Response(tuple(tokens), False)


def end_sometimes(model: Any, bias: float = 2.0) -> Any:
    """Makes the end of text likelier: a random model would go on for ever."""

    def add(_head: Any, _arguments: Any, logits: torch.Tensor) -> torch.Tensor:
        logits = logits.clone()
        logits[..., END] += bias
        return logits

    model.get_output_embeddings().register_forward_hook(add)
    return model


@pytest.fixture(scope="module")
def speaker(make_model: Callable[..., LlamaForCausalLM]) -> Any:
    return end_sometimes(make_model(3)).eval()


@pytest.mark.parametrize("decoding", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("num_rows", [1, 3, 5, 64])
def test_text_for_any_number_of_rows_is_that_of_the_model_alone(
    decoding: Decoding, num_rows: int, speaker: Any
) -> None:
    prompts = some_prompts(speaker.config.vocab_size)
    expected = [alone(speaker, prompt, decoding) for prompt in prompts]
    assert generate(speaker, prompts, decoding, num_rows=num_rows) == expected
    ended = [response.ended for response in expected]
    assert any(ended)
    assert not all(ended)
    assert len({len(response.tokens) for response in expected}) > 3


def test_text_for_any_order_is_the_same(speaker: Any) -> None:
    prompts = some_prompts(speaker.config.vocab_size, 20)
    order = list(range(len(prompts)))
    random.Random(1).shuffle(order)
    straight = generate(speaker, prompts, SAMPLED, num_rows=4)
    mixed = generate(speaker, [prompts[number] for number in order], SAMPLED, num_rows=7)
    assert mixed == [straight[number] for number in order]


@pytest.mark.parametrize("num_rows", [3, 64])
def test_a_mask_that_is_added_to_scores_gives_the_same_text(
    num_rows: int, speaker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on CUDA; it is made when sequences join or leave, not in each step."""
    prompts, made = some_prompts(speaker.config.vocab_size), []
    expected = generate(speaker, prompts, SAMPLED, num_rows=num_rows)
    make = pool_module.attention_bias
    monkeypatch.setattr(pool_module, "takes_bias", lambda _model: True)
    monkeypatch.setattr(
        pool_module, "attention_bias", lambda *given: made.append(given) or make(*given)
    )
    assert generate(speaker, prompts, SAMPLED, num_rows=num_rows) == expected
    sizes = [len(one.tokens) for one in expected]
    least_steps = max(max(sizes) - 1, sum(sizes) / num_rows - 1)
    assert 0 < len(made) < least_steps


def test_another_seed_gives_another_text(speaker: Any) -> None:
    prompts = some_prompts(speaker.config.vocab_size)
    other = Decoding(temperature=0.7, top_p=0.9, max_new_tokens=24, seed=2)
    assert generate(speaker, prompts, SAMPLED) != generate(speaker, prompts, other)


def test_greedy_text_is_that_of_transformers_generate(speaker: Any) -> None:
    prompts = some_prompts(speaker.config.vocab_size)
    for prompt, response in zip(prompts, generate(speaker, prompts, GREEDY), strict=True):
        ids = torch.tensor([prompt.tokens])
        whole = speaker.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=24,
            eos_token_id=END,
            pad_token_id=0,
            use_cache=True,
        )[0].tolist()
        expected = tuple(whole[len(prompt.tokens) :])
        assert response.tokens == (expected[:-1] if expected[-1] == END else expected)


def test_a_common_beginning_is_computed_once(speaker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = [one for one in some_prompts(speaker.config.vocab_size) if one.group == "second"]
    fed: list[int] = []
    plain = speaker.forward

    def counting(*args: Any, **kwargs: Any) -> Any:
        fed.append(kwargs["input_ids"].numel())
        return plain(*args, **kwargs)

    monkeypatch.setattr(speaker, "forward", counting)
    one_token = Decoding(temperature=0.0, top_p=1.0, max_new_tokens=1, seed=1)
    generate(speaker, prompts, one_token, num_rows=1)
    assert fed == [21, *sorted((len(prompt.tokens) - 21 for prompt in prompts), reverse=True)]


def test_common_prefix() -> None:
    assert common_prefix([(1, 2, 3), (1, 2, 4), (1, 2, 3, 5)]) == (1, 2)
    assert common_prefix([(1, 2), (1, 2)]) == (1,)
    assert common_prefix([(1, 2), (1, 2, 3)]) == (1,)
    assert common_prefix([(1, 2), (3, 4)]) == ()
    assert common_prefix([(1, 2)]) == ()


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("name", [name for name in METHODS if name != "adapter"])
def test_every_method(
    name: str, implementation: str, make_model: Callable[..., LlamaForCausalLM]
) -> None:
    method, model = METHODS[name], make_model(3)
    model.set_attn_implementation(implementation)
    settings = {"rank": 4} if "rank" in method.options.model_fields else {}
    settings |= {"num_layers": 2} if "num_layers" in method.options.model_fields else {}
    model = method.apply(model, method.options.model_validate(settings), 3)
    stir = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=stir))
    model = end_sometimes(model).eval()
    prompts = some_prompts(model.config.vocab_size, 6)
    refusal = reason_against_cache(model, [prompt.tokens for prompt in prompts], None)
    assert (refusal is not None) == (name in ("prefix-tuning", "prompt-tuning")), refusal
    found = generate(model, prompts, SAMPLED, num_rows=3, reason_against_cache=refusal)
    assert found == [alone(model, prompt, SAMPLED) for prompt in prompts]


@pytest.mark.parametrize("name", ["llama", "mistral", "gemma2", "phi3", "gpt-neox", "gpt2"])
def test_every_family(name: str) -> None:
    """Mistral's and Gemma's windows of 60 tokens are shorter than some of the sequences."""
    model = end_sometimes(family(name, 200)).eval()
    prompts = some_prompts(200, 6, longest=80)
    assert max(len(prompt.tokens) for prompt in prompts) > 80
    assert reason_against_cache(model, [prompt.tokens for prompt in prompts], None) is None
    found = generate(model, prompts, GREEDY, num_rows=3)
    assert found == [alone(model, prompt, GREEDY) for prompt in prompts]


def test_a_model_that_ignores_the_mask_is_found_out(
    make_model: Callable[..., LlamaForCausalLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(3).eval()
    prompts = [prompt.tokens for prompt in some_prompts(model.config.vocab_size)]
    plain = model.forward
    monkeypatch.setattr(
        model,
        "forward",
        lambda *args, **kwargs: plain(*args, **(kwargs | {"attention_mask": None})),
    )
    refusal = reason_against_cache(model, prompts, None)
    assert refusal is not None
    assert "move a log-probability" in refusal


def test_memory_that_runs_out_in_the_trial_says_nothing_of_the_model(
    make_model: Callable[..., LlamaForCausalLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Less is tried, and no fallback is recorded."""
    model, sizes = make_model(), []
    prompts = [prompt.tokens for prompt in some_prompts(model.config.vocab_size)]

    def compare(model: object, chosen: list[object], *others: object) -> None:
        sizes.append(len(chosen))
        if len(chosen) > 1 or len(sizes) > 4:
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED")

    monkeypatch.setattr(cache_check, "_compare", compare)
    assert reason_against_cache(model, prompts, None) is None
    assert sizes == [2, 1]
    assert reason_against_cache(model, prompts, None) is None
    assert sizes == [2, 1, 2]  # one prompt passed; two are tried again
    other = make_model()
    sizes.extend([0, 0])
    with pytest.raises(EvaluationError, match="too small to try one prompt at a time"):
        reason_against_cache(other, prompts, None)


@pytest.mark.parametrize("plainly", [False, True])
def test_memory_that_runs_out_halves_the_rows_and_keeps_what_is_done(
    plainly: bool, speaker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = some_prompts(speaker.config.vocab_size, 16)
    expected = generate(speaker, prompts, SAMPLED)
    plain, most = speaker.forward, []

    def small(*args: Any, **kwargs: Any) -> Any:
        rows = len(kwargs["input_ids"])
        if rows > 4:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        most.append(rows)
        return plain(*args, **kwargs)

    monkeypatch.setattr(speaker, "forward", small)
    found: dict[int, Response] = {}
    reason = "for the test" if plainly else None
    generator = Generator(speaker, SAMPLED, frozenset([END]), 16, reason)
    generator.generate(prompts, found.__setitem__)
    assert [found[number] for number in range(len(prompts))] == expected
    assert generator.num_rows in ((4,) if not plainly else (4, 8, 16))
    assert max(most) <= 4


@pytest.mark.long
def test_memory_for_less_than_one_is_told(speaker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_args: Any, **_kwargs: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(speaker, "forward", never)
    with pytest.raises(EvaluationError, match="too small to generate one response"):
        generate(speaker, some_prompts(100), SAMPLED)


def test_logits_that_are_no_numbers_are_told(make_model: Callable[..., LlamaForCausalLM]) -> None:
    model = make_model(1)
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(EvaluationError, match="first: the model's logits are not numbers"):
        generate(model, some_prompts(100)[:1], SAMPLED)


def test_ended_sequences_leave_the_pool(speaker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    widths: list[int] = []
    plain = Pool.step

    def recording(pool: Pool, tokens: Sequence[int]) -> torch.Tensor:
        widths.append(len(tokens))
        return plain(pool, tokens)

    monkeypatch.setattr(Pool, "step", recording)
    prompts = some_prompts(speaker.config.vocab_size, 40)
    responses = generate(speaker, prompts, SAMPLED, num_rows=16)
    needed = sum(max(0, len(one.tokens) - (not one.ended)) for one in responses)
    assert max(widths) <= 16
    assert needed <= sum(widths) <= needed * (1 + 2 / generator_module.DROP_SHARE) + 16
