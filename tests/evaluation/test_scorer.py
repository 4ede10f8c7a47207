"""The law: every answer is what lm-eval's own `HFLM` gives, whatever is asked of whatever model."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedTokenizerFast,
)

from harness.errors import EvaluationError
from harness.evaluation.loading import load_benchmark
from harness.evaluation.prefix_trie.forward import TrieForward, padded_length
from harness.evaluation.scorer import Scorer
from harness.evaluation.tasks import TaskSpec
from harness.methods import METHODS
from tests.evaluation.conftest import WORDS, Rows

TOLERANCE = 1e-4
REAL = ("arc_easy", "arc_challenge", "mmlu", "hellaswag", "truthfulqa_mc1", "truthfulqa_mc2")


def requests(pairs: Sequence[tuple[str, str]]) -> list[Instance]:
    return [
        Instance("loglikelihood", doc={}, arguments=pair, idx=number, metadata=("ours", number, 1))
        for number, pair in enumerate(pairs)
    ]


def reference(model: Any, tokenizer: Any, **settings: Any) -> HFLM:
    return HFLM(pretrained=model, tokenizer=tokenizer, batch_size=8, **settings)


def assert_equals_hflm(
    model: Any, tokenizer: Any, asked: Sequence[Instance], **settings: Any
) -> Scorer:
    """Asserts the law, and returns the scorer."""
    model.eval()
    expected = reference(model, tokenizer).loglikelihood(list(asked), disable_tqdm=True)
    scorer = Scorer(model, tokenizer, **settings)
    found = scorer.loglikelihood(list(asked))
    assert len(found) == len(expected) == len(asked)
    for (value, greedy), (expected_value, expected_greedy) in zip(found, expected, strict=True):
        assert value == pytest.approx(expected_value, abs=TOLERANCE, rel=0)
        assert greedy == expected_greedy
    return scorer


def choices(seed: int = 1, count: int = 6, length: int = 8) -> list[tuple[str, str]]:
    rows = Rows()
    rows.rng.seed(seed)
    pairs = []
    for _ in range(count):
        context = f"Q: {rows.text(3, length)}\nA:"
        pairs += [(context, " " + rows.text(1, 5)) for _ in range(4)]
    return pairs


@pytest.fixture(scope="module")
def greedy_answers(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> list:
    """Answers that the model itself gives, whole and with another end."""
    pairs = []
    model.eval()
    for context in ("the quick brown", "river stone", "seven lamps under"):
        ids = tokenizer(context, return_tensors="pt").input_ids
        with torch.no_grad():
            for _ in range(5):
                ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], dim=1)
        pairs.append((ids[0].tolist(), len(tokenizer(context).input_ids)))
    return pairs


CASES: dict[str, list[tuple[str, str]]] = {
    "choices": choices(),
    "one token": [(f"{a} {b}", c) for a in WORDS[:3] for b in WORDS[:2] for c in ("a", "b", "x")],
    "empty context": [("", " river stone"), ("", "cloud"), ("", "<s> apple"), ("the", " fox")],
    "context with spaces at its end": [("the fox  ", "sings"), ("the fox ", " sings")],
    "repeated": choices(2, 2) * 3,
    "contexts that differ in a word": [
        (f"the quick {word} fox under the", " bright metal sings") for word in WORDS[:5]
    ],
    "contexts that differ in the last word": [
        (f"under the bright cloud a lamp {word}", " sings of the river") for word in WORDS[:5]
    ],
    "an answer that begins another": [
        ("the fox", end) for end in (" sings", " sings a", " sings a stone", " sings the")
    ],
    "one alone": [("the fox", " sings")],
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("token_budget", [64, 4096])
def test_requests_of_every_form(
    name: str,
    token_budget: int,
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    asked = requests(CASES[name])
    scorer = assert_equals_hflm(model, tokenizer, asked, token_budget=token_budget)
    assert scorer.batching.fallback is None


def test_the_same_text_split_elsewhere(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    pairs = [("the fox", " sings a stone"), ("the fox sings", " a stone"), ("the", " fox sings a")]
    asked = requests([*pairs, ("the fox sings a", " stone")])
    exact = reference(model.eval(), tokenizer, logits_cache=False)
    expected = exact.loglikelihood(asked, disable_tqdm=True)
    scorer = Scorer(model, tokenizer)
    assert [value for value, _ in scorer.loglikelihood(asked)] == pytest.approx(
        [value for value, _ in expected], abs=TOLERANCE
    )
    assert scorer.batching.fallback is None


def test_nothing_is_asked(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    assert Scorer(model.eval(), tokenizer).loglikelihood([]) == []


@pytest.mark.parametrize("max_length", [9, 24, 30])
def test_requests_longer_than_the_model_lose_their_beginning(
    max_length: int,
    make_model: Callable[..., LlamaForCausalLM],
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    pairs = [pair for pair in choices(3, 8, 20) if len(tokenizer.encode(pair[1])) < max_length]
    scorer = assert_equals_hflm(make_model(max_length=max_length), tokenizer, requests(pairs))
    cut = sum(len(tokenizer.encode("".join(pair))) - 1 > max_length for pair in pairs)
    assert sum(scorer.truncated.values()) == cut > 0


def test_answers_that_the_model_would_give_are_greedy(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    greedy_answers: list[tuple[list[int], int]],
) -> None:
    scorer = Scorer(model.eval(), tokenizer)
    tokens = []
    for ids, start in greedy_answers:
        tokens.append((ids[:start], ids[start:]))
        tokens.append((ids[:start], [*ids[start:-1], (ids[-1] + 1) % 300]))
        tokens.append((ids[:start], [(ids[start] + 1) % 300, *ids[start + 1 :]]))
    scorer._task_names, scorer._picture_names = [""] * len(tokens), [None] * len(tokens)
    found = scorer._loglikelihood_tokens([(("", ""), *pair) for pair in tokens])
    assert [greedy for _, greedy in found] == [True, False, False] * len(greedy_answers)


def test_rolling_log_likelihoods_are_those_of_hflm(
    make_model: Callable[..., LlamaForCausalLM], tokenizer: PreTrainedTokenizerFast
) -> None:
    model = make_model(max_length=16).eval()
    texts = [" ".join(WORDS), "river", " ".join(WORDS[:9]) * 3]
    asked = [Instance("loglikelihood_rolling", {}, (text,), n) for n, text in enumerate(texts)]
    expected = reference(model, tokenizer).loglikelihood_rolling(asked, disable_tqdm=True)
    scorer = Scorer(model, tokenizer)
    assert scorer.loglikelihood_rolling(asked, disable_tqdm=True) == pytest.approx(expected)


def test_each_request_is_reported_once(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    seen: list[tuple[int, int]] = []
    asked = requests(CASES["repeated"])
    scorer = Scorer(
        model.eval(),
        tokenizer,
        on_progress=lambda done, total: seen.append((done, total)),
    )
    scorer.loglikelihood(asked)
    assert seen == [(done, len(asked)) for done in range(1, len(asked) + 1)]


def test_answers_do_not_depend_on_what_was_scored_before(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    asked = requests(choices(5))
    fresh = Scorer(model.eval(), tokenizer).loglikelihood(asked)
    used = Scorer(model.eval(), tokenizer)
    used.loglikelihood(requests(choices(6)))
    assert used.loglikelihood(asked) == fresh
    backwards = Scorer(model, tokenizer).loglikelihood(asked[::-1])
    assert backwards[::-1] == fresh


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("name", [name for name in METHODS if name != "adapter"])
def test_every_method(
    name: str,
    implementation: str,
    make_model: Callable[..., LlamaForCausalLM],
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    method, model = METHODS[name], make_model()
    model.set_attn_implementation(implementation)
    settings = {"rank": 4} if "rank" in method.options.model_fields else {}
    settings |= {"num_layers": 2} if "num_layers" in method.options.model_fields else {}
    model = method.apply(model, method.options.model_validate(settings), 3)
    random = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=random))
    scorer = assert_equals_hflm(model, tokenizer, requests(long_and_short(tokenizer)))
    virtual = name in ("prefix-tuning", "prompt-tuning")
    assert (scorer.batching.fallback is not None) == virtual


def long_and_short(tokenizer: PreTrainedTokenizerFast) -> list[tuple[str, str]]:
    """Requests with short contexts, long ones apart, and a preamble before some."""
    rows = Rows()
    long = rows.text(250, 250)
    preamble = rows.text(90, 90)
    pairs = [*choices(7, 3), *((long, end) for _, end in choices(8, 1))]
    return pairs + [(f"{preamble} {context}", end) for context, end in choices(9, 8)]


SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 1024,
    "initializer_range": 0.2,
}


def family(name: str, vocabulary: int) -> Any:
    """Returns a random model of a family, with that family's own ways of attention and logits."""
    torch.manual_seed(0)
    sizes = SIZES | {"vocab_size": vocabulary}
    grouped = sizes | {"num_key_value_heads": 2}
    no_pad = {"pad_token_id": None}
    if name == "gpt-neox":
        return GPTNeoXForCausalLM(GPTNeoXConfig(**sizes, rotary_pct=0.5))
    if name == "gpt2":
        config = GPT2Config(vocab_size=vocabulary, n_embd=32, n_layer=3, n_head=4)
        return GPT2LMHeadModel(config)
    if name == "phi3":
        return Phi3ForCausalLM(Phi3Config(**grouped, **no_pad))
    if name == "mistral":
        return MistralForCausalLM(MistralConfig(**grouped, sliding_window=60))
    if name == "gemma2":
        config = Gemma2Config(
            **grouped,
            head_dim=8,
            query_pre_attn_scalar=8,
            sliding_window=60,
            final_logit_softcapping=3.0,
            attn_logit_softcapping=5.0,
        )
        config._attn_implementation = "eager"
        return Gemma2ForCausalLM(config)
    return LlamaForCausalLM(LlamaConfig(**grouped, attention_bias=True))


@pytest.mark.parametrize("name", ["llama", "mistral", "gemma2", "phi3", "gpt-neox", "gpt2"])
def test_every_family(name: str, tokenizer: PreTrainedTokenizerFast) -> None:
    model = family(name, len(tokenizer))
    scorer = assert_equals_hflm(model, tokenizer, requests(long_and_short(tokenizer)))
    windowed = name in ("mistral", "gemma2")
    assert (scorer.batching.fallback is not None) == windowed
    if windowed:
        assert "window of 60 tokens" in scorer.batching.fallback
        short = assert_equals_hflm(model, tokenizer, requests(choices(7, 3)))
        assert short.batching.fallback is None


def test_a_fallback_is_logged(
    make_model: Callable[..., LlamaForCausalLM],
    tokenizer: PreTrainedTokenizerFast,
    caplog: pytest.LogCaptureFixture,
) -> None:
    method = METHODS["prompt-tuning"]
    model = method.apply(make_model(), method.options(), 0)
    with caplog.at_level(logging.WARNING, logger="harness"):
        assert_equals_hflm(model, tokenizer, requests(choices()))
    assert "prompt_tuning adds virtual tokens" in caplog.text


def test_logits_are_computed_where_a_token_is_scored_and_nowhere_else(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    asked = requests(choices(4))
    model.eval()
    Scorer(model, tokenizer).loglikelihood(asked)  # compares ways of scoring, once
    rows = []
    hook = model.lm_head.register_forward_hook(lambda _m, _i, logits: rows.append(logits.shape))
    Scorer(model, tokenizer).loglikelihood(asked)
    hook.remove()
    scored = set()
    for context, answer in (one.args for one in asked):
        start, whole = len(tokenizer.encode(context)), tokenizer.encode(context + answer)
        scored |= {tuple(whole[:end]) for end in range(start, len(whole))}
    assert sum(shape[1] for shape in rows) == len(scored)


def test_memory_that_runs_out_halves_the_budget_and_loses_nothing(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = requests(choices(11, 90))
    expected = Scorer(model.eval(), tokenizer).loglikelihood(asked)
    passes, told = [0], []
    forward = TrieForward.run

    def small_memory(self: TrieForward, rows: Any, *others: Any, **settings: Any) -> Any:
        if len(rows) * padded_length(rows) > 300 and passes[0] > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        passes[0] += 1
        return forward(self, rows, *others, **settings)

    monkeypatch.setattr(TrieForward, "run", small_memory)
    scorer = Scorer(
        model, tokenizer, token_budget=1024, on_progress=lambda done, _: told.append(done)
    )
    found = scorer.loglikelihood(asked)
    assert scorer.batching.setting == 1024
    assert scorer.batching.effective in (256, 512)
    assert told == list(range(1, len(asked) + 1))
    assert [value for value, _ in found] == pytest.approx([v for v, _ in expected], abs=1e-5)


@pytest.mark.parametrize("name", REAL)
def test_real_items_with_a_real_model(name: str, real_root: Path) -> None:
    folder = real_root / "stories260k_hf"
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    limit = {"mmlu": 1, "hellaswag": 3}.get(name, 12)
    assert_equals_hflm(model, tokenizer, real_requests(name, limit, real_root))


def real_requests(name: str, limit: int, root: Path) -> list[Instance]:
    loaded = load_benchmark(TaskSpec(name=name, limit=limit), root)
    loaded.build_requests()
    return [one for task in loaded.tasks.values() for one in task.instances]


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_real_items_with_a_model_of_110_million(name: str, real_root: Path) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32000,
        hidden_size=768,
        intermediate_size=2048,
        num_hidden_layers=12,
        num_attention_heads=12,
        max_position_embeddings=2048,
    )
    tokenizer = AutoTokenizer.from_pretrained(real_root / "llama_tokenizer")
    asked = real_requests(name, {"mmlu": 1, "hellaswag": 2}.get(name, 6), real_root)
    assert_equals_hflm(LlamaForCausalLM(config), tokenizer, asked)


def test_a_text_that_spells_a_token_outside_of_the_model_is_told(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    config = LlamaConfig(vocab_size=20, num_attention_heads=2, **sizes)
    scorer = Scorer(LlamaForCausalLM(config), tokenizer)
    with pytest.raises(EvaluationError, match=r"'B' or its context spells a token outside of .*20"):
        scorer.loglikelihood(requests([("A", "B")]))
