"""Pictures of requests: shared, batched, in any order, a model gives what it gives alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from PIL import Image
from transformers import AutoConfig, AutoModelForCausalLM

from harness.errors import EvaluationError
from harness.evaluation.benchmarks import Decoding
from harness.evaluation.paper.model import GeneratingModel
from harness.evaluation.pictures import as_picture, picture_of_request, without_pictures
from harness.evaluation.prefix_trie.trie import Request, plan_spans
from harness.evaluation.scorer import Scorer
from harness.methods import METHODS
from harness.models.pictures import PictureFeatures, pictures_of_rows, using_pictures
from harness.readers.pictures import Picture
from harness.testing.method_laws import perturb
from tests.evaluation.conftest import png
from tests.fixtures.pictures import ENCODER, NUM_FEATURES

SIZES: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
MODELS = [
    ("llama", "zero-init-linear"),
    ("llama", "zero-init-nonlinear"),
    ("llama", "random-init"),
    ("qwen3", "zero-init-linear"),  # whose keys are normed: the picture is in the prompt's rows
]
GREEDY = Decoding(temperature=0.0, top_p=1.0, max_new_tokens=6)


PICTURES = [None, png("red"), png("green"), png("blue")]


def encode(pictures: Sequence[Picture]) -> PictureFeatures:
    """Features that belong to the picture alone."""
    rows = []
    for picture in pictures:
        generator = torch.Generator().manual_seed(int(picture.sha256[:8], 16))
        rows.append(2 * torch.randn(NUM_FEATURES, generator=generator))
    return PictureFeatures(tuple(one.sha256 for one in pictures), torch.stack(rows))


@cache
def looking(family: str, method: str) -> Any:
    """A random model under a trained prompt that takes pictures."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        sizes = SIZES | ({"head_dim": 8} if family == "qwen3" else {})
        config = AutoConfig.for_model(family, initializer_range=0.2, **sizes)
        base = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    found = METHODS[method]
    options = found.options.model_validate(
        {"prompt_length": 3, "num_layers": 2, "image_encoder": ENCODER}
    )
    return perturb(found.apply(base, options, 0)).eval()


def asked(
    arguments: Sequence[tuple[Any, ...]], kind: str = "loglikelihood", task: str = "ours"
) -> list[Instance]:
    return [
        Instance(kind, doc={}, arguments=one, idx=0, metadata=(task, number, 1))
        for number, one in enumerate(arguments)
    ]


def shown(data: bytes | None) -> dict[str, Any]:
    return {"visual": data}


CONTEXTS = ["river stone cloud apple", "river stone cloud lamp seven", "metal sings", "the a of"]
CHOICES = [
    (context, answer, shown(data))
    for context in CONTEXTS
    for answer in (" brown", " brown fox", " under bright metal")
    for data in PICTURES
]
OPEN = [
    (context, {"until": ["\n"], "max_gen_toks": 6}, shown(data))
    for context in CONTEXTS
    for data in PICTURES
]


def pictures_alone(model: Any, name: str | None) -> Any:
    data = {Picture.of(one).sha256: one for one in PICTURES if one is not None}
    if name is None:
        return None
    features = encode([Picture.of(data[name])])
    return pictures_of_rows(model, features, [name], torch.device("cpu"))


@torch.no_grad()
def alone(model: Any, request: Request) -> float:
    """A request's log-likelihood by the formula, in a pass of its own."""
    with using_pictures(pictures_alone(model, request.picture)):
        logits_TV = model(torch.tensor([request.input_ids])).logits[0].double()
    logs_TV = logits_TV.log_softmax(-1)[-len(request.continuation_ids) :]
    return float(logs_TV[range(len(logs_TV)), list(request.continuation_ids)].sum())


@pytest.mark.parametrize(("family", "method"), MODELS)
def test_shared_scoring_is_one_by_one(family: str, method: str, tokenizer: Any) -> None:
    model = looking(family, method)
    scorer = Scorer(model, tokenizer, encode_pictures=encode, token_budget=512)
    found = scorer.loglikelihood(asked(CHOICES))
    assert scorer.batching.fallback is None
    expected = [alone(model, request) for request in scorer.requests["ours"]]
    assert [value for value, _ in found] == pytest.approx(expected, rel=1e-5, abs=1e-5)
    # No two of the pictures, and none, agree on a question.
    by_question = [found[start : start + 4] for start in range(0, len(found), 4)]
    assert all(len({value for value, _ in values}) == 4 for values in by_question)


def test_small_batches_and_kept_prefixes_are_one_by_one(tokenizer: Any) -> None:
    model = looking("llama", "zero-init-linear")
    long = " ".join(["quick brown fox under bright metal"] * 12)
    questions = [
        (f"{long} {end}", f" {answer}", shown(data))
        for end in ("river", "stone lamp", "apple sings the of")
        for answer in ("brown", "fox under", "seven a of")
        for data in PICTURES
    ]
    scorer = Scorer(model, tokenizer, encode_pictures=encode, token_budget=128)
    values = [value for value, _ in scorer.loglikelihood(asked(questions))]
    assert scorer.batching.fallback is None
    spans = plan_spans(scorer.requests["ours"], largest_segment=128, hidden_size=32)
    assert any(span.segment.parent is not None for span in spans)
    expected = [alone(model, request) for request in scorer.requests["ours"]]
    assert values == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_order_of_requests_does_not_matter(tokenizer: Any) -> None:
    model = looking("llama", "zero-init-linear")
    found = Scorer(model, tokenizer, encode_pictures=encode).loglikelihood(asked(CHOICES))
    again = Scorer(model, tokenizer, encode_pictures=encode).loglikelihood(asked(CHOICES[::-1]))
    assert found == again[::-1]


def test_requests_under_different_pictures_share_no_segment() -> None:
    tokens = tuple(range(100))
    requests = [
        Request((*tokens, last), (5,), picture) for picture in (None, "a", "b") for last in (7, 8)
    ]
    spans = plan_spans(requests, largest_segment=4096, hidden_size=32)
    needed: dict[str | None, set[int]] = {}
    for span in spans:
        segment: Any = span.segment
        while segment is not None:
            assert segment.picture == requests[span.request].picture
            needed.setdefault(segment.picture, set()).add(segment.number)
            segment = segment.parent
    assert len(needed) == 3
    assert not needed[None] & needed["a"]
    assert not needed["a"] & needed["b"]
    of_one = plan_spans(requests[:2], largest_segment=4096, hidden_size=32)
    sizes = {span.segment.number: span.segment.size for span in of_one}
    assert len(spans) == 3 * len(of_one)
    assert sum(sizes.values()) < 2 * len(tokens)  # those under one picture share


def test_without_sharing_each_row_is_under_its_picture(tokenizer: Any) -> None:
    model = looking("llama", "zero-init-linear")
    scorer = Scorer(model, tokenizer, encode_pictures=encode)
    scorer._refusal = "it is told so"
    values = [value for value, _ in scorer.loglikelihood(asked(CHOICES))]
    assert scorer.batching.fallback == "it is told so"
    expected = [alone(model, request) for request in scorer.requests["ours"]]
    assert values == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_rolling_windows_are_under_the_picture(tokenizer: Any) -> None:
    model = looking("llama", "random-init")
    texts = [("river stone cloud apple lamp seven", shown(data)) for data in PICTURES]
    scorer = Scorer(model, tokenizer, encode_pictures=encode)
    found = scorer.loglikelihood_rolling(asked(texts, "loglikelihood_rolling"))
    expected = [alone(model, request) for request in scorer.requests["ours"]]
    assert found == pytest.approx(expected, rel=1e-5)
    assert len(set(found)) == 4


@torch.no_grad()
def generated_alone(model: Any, tokenizer: Any, prompt: tuple[int, ...], data: Any) -> list[int]:
    tokens = list(prompt)
    picture = None if data is None else Picture.of(data).sha256
    for _ in range(GREEDY.max_new_tokens):
        with using_pictures(pictures_alone(model, picture)):
            tokens.append(int(model(torch.tensor([tokens])).logits[0, -1].argmax()))
        if tokens[-1] == tokenizer.eos_token_id:
            break
    return tokens[len(prompt) :]


@pytest.mark.parametrize(("family", "method"), MODELS)
@pytest.mark.parametrize("num_rows", [3, 64])
def test_generating_side_by_side_is_alone(
    family: str, method: str, num_rows: int, tokenizer: Any
) -> None:
    model = looking(family, method)
    speaker = GeneratingModel(
        model, tokenizer, decoding=GREEDY, num_rows=num_rows, encode_pictures=encode
    )
    speaker.generate_until(asked(OPEN, "generate_until"))
    assert speaker.batching.fallback is None
    for number, (text, _, picture) in enumerate(OPEN):
        prompt = speaker.encode_prompt(text)
        expected = generated_alone(model, tokenizer, prompt, picture["visual"])
        response = speaker.responses["ours", number]
        found = [*response.tokens, *([tokenizer.eos_token_id] if response.ended else [])]
        assert found == expected
    assert len({speaker.responses["ours", number].tokens for number in range(4)}) > 1


def test_generating_without_a_cache_and_by_transformers_is_the_same(tokenizer: Any) -> None:
    model = looking("llama", "zero-init-linear")
    pool = Scorer(model, tokenizer, encode_pictures=encode)
    expected = pool.generate_until(asked(OPEN, "generate_until"))
    assert pool.batching.fallback is None
    own = [(text, {**given, "no_repeat_ngram_size": 0}, picture) for text, given, picture in OPEN]
    theirs = Scorer(model, tokenizer, encode_pictures=encode)
    assert theirs.generate_until(asked(own, "generate_until")) == expected
    assert theirs.batching.fallback == "the task sets no_repeat_ngram_size"
    beams = [(text, {**given, "num_beams": 2}, picture) for text, given, picture in OPEN[:4]]
    found = Scorer(model, tokenizer, encode_pictures=encode).generate_until(
        asked(beams, "generate_until")
    )
    assert len(found) == 4


def test_each_picture_is_encoded_once(tokenizer: Any) -> None:
    calls: list[list[str]] = []

    def counting(pictures: Sequence[Picture]) -> PictureFeatures:
        calls.append([one.sha256 for one in pictures])
        return encode(pictures)

    scorer = Scorer(looking("llama", "zero-init-linear"), tokenizer, encode_pictures=counting)
    scorer.loglikelihood(asked(CHOICES))
    scorer.generate_until(asked(OPEN, "generate_until"))
    assert calls == [[Picture.of(data).sha256 for data in PICTURES if data is not None]]


def test_a_model_without_an_encoder_is_shown_none(model: Any, tokenizer: Any) -> None:
    scorer = Scorer(model.eval(), tokenizer, encode_pictures=encode)
    found = scorer.loglikelihood(asked(CHOICES))
    assert found == Scorer(model, tokenizer).loglikelihood(asked([one[:2] for one in CHOICES]))
    assert all(request.picture is None for request in scorer.requests["ours"])
    switched_off = Scorer(looking("llama", "random-init"), tokenizer)
    switched_off.loglikelihood(asked(CHOICES))
    assert all(request.picture is None for request in switched_off.requests["ours"])


@pytest.mark.parametrize(
    "hold", [lambda data: data, lambda data: [data], lambda data: {"bytes": data, "path": None}]
)
def test_a_picture_is_its_bytes(hold: Callable[[bytes], object]) -> None:
    data = png("red")
    (request,) = asked([("text", " answer", shown(hold(data)))])  # type: ignore[arg-type]
    assert picture_of_request(request) == Picture.of(data)
    assert without_pictures([request])[0].args == ("text", " answer")


def test_a_picture_of_pillow_is_a_png() -> None:
    found = as_picture(Image.new("CMYK", (4, 4)), "here")
    assert found is not None
    assert found.check() == (4, 4)
    assert as_picture({"bytes": None, "path": "lost.png"}, "here") is None


@pytest.mark.parametrize(
    ("visual", "said"),
    [
        ([png("red"), png("blue")], "ours: item 0 has 2 pictures"),
        (7, "ours: item 0 shows a int where a picture is due"),
        (b"", "ours: item 0: the picture has zero bytes; correct it, or leave it out"),
        (b"not a picture", "ours: item 0: its bytes are no picture"),
    ],
)
def test_what_is_no_picture_is_named(visual: object, said: str, tokenizer: Any) -> None:
    scorer = Scorer(looking("llama", "random-init"), tokenizer, encode_pictures=encode)
    with pytest.raises(EvaluationError, match=said):
        scorer.loglikelihood(asked([("text", " answer", {"visual": visual})]))
