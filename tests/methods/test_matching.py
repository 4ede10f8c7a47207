"""Sizes that bring methods to equal numbers of trained parameters."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from harness.errors import MethodError
from harness.methods import METHODS
from harness.methods.matching import Matched, MatchSpec, match_parameters
from harness.methods.peft_settings import MATCHED
from harness.models.shape import ModelShape
from tests.fixtures.tiny_models import LLAMA_7B

SMALL = ModelShape(
    num_hidden_layers=4,
    hidden_size=64,
    intermediate_size=128,
    num_attention_heads=4,
    vocab_size=61,
)
LORA_7B = 4_194_304


def match(
    name: str,
    target: int,
    shape: ModelShape = LLAMA_7B,
    tolerance: float = 0.1,
    **options: Any,
) -> Matched:
    method = METHODS[name]
    stated = method.options.model_validate(options, context=MATCHED)
    return match_parameters(method, stated, shape, target, tolerance)


@pytest.mark.parametrize(
    ("name", "options", "sizes"),
    [
        ("lora", {}, {"rank": 8}),
        ("lora", {"targets": ["q_proj", "k_proj", "v_proj", "o_proj"]}, {"rank": 4}),
        ("dora", {"targets": ["q_proj", "v_proj"]}, {"rank": 7}),
        ("vera", {}, {"rank": 12_654}),
        ("prefix-tuning", {}, {"num_virtual_tokens": 16}),
        ("prompt-tuning", {}, {"num_virtual_tokens": 1024}),
        ("adaption-prompt", {}, {"prompt_length": 34}),
        ("zero-init-linear", {}, {"prompt_length": 34}),
        ("zero-init-linear", {"prompt_length": 64}, {"num_layers": 16}),
        ("zero-init-nonlinear", {}, {"hidden_size": 101}),
    ],
)
def test_the_size_nearest_to_a_budget_is_chosen(
    name: str, options: dict[str, Any], sizes: dict[str, int]
) -> None:
    found = match(name, LORA_7B, **options)
    assert found.sizes == sizes
    chosen = METHODS[name].options(**options, **sizes)
    assert found.options == chosen
    assert found.options.identity() == chosen.identity()
    count = METHODS[name].count_parameters
    assert found.parameters == count(LLAMA_7B, chosen)
    (first, size), *_ = sizes.items()
    for near in (size - 1, size + 1):
        other = count(LLAMA_7B, METHODS[name].options(**options, **sizes | {first: near}))
        assert abs(other - LORA_7B) >= abs(found.parameters - LORA_7B)


@pytest.mark.parametrize(
    ("settings", "target", "chosen"),
    [
        ({"peft_type": "LOHA"}, 4096, {"r": 2}),
        ({"peft_type": "OFT"}, 1800, {"oft_block_size": 8}),
        ({"peft_type": "C3A"}, 2048, {"block_size": 16}),
        ({"peft_type": "FOURIERFT"}, 800, {"n_frequency": 100}),
        ({"peft_type": "PREFIX_TUNING"}, 1600, {"num_virtual_tokens": 3}),
    ],
)
def test_types_of_peft_are_matched_by_their_own_sizes(
    settings: dict[str, Any], target: int, chosen: dict[str, int]
) -> None:
    found = match("peft", target, SMALL, peft=settings)
    assert found.sizes == chosen
    assert found.options == METHODS["peft"].options(peft=settings | chosen)


def test_what_was_chosen_is_told_with_its_distance() -> None:
    assert str(match("lora", 4_200_000)) == (
        "rank 8: 4,194,304 trained parameters, 0.1% fewer than 4,200,000"
    )
    assert str(match("lora", LORA_7B)).endswith("4,194,304 trained parameters, exactly 4,194,304")


def test_no_solution_names_the_nearest_on_either_side() -> None:
    with pytest.raises(MethodError) as found:
        match("lora", 700_000)
    assert str(found.value) == (
        "match: no size of 'lora' has 700,000 parameters within 10%: rank 1 has 524,288, rank 2 "
        "has 1,048,576; state a number that one of its sizes has, or a larger `tolerance`"
    )
    assert match("lora", 700_000, tolerance=0.3).sizes == {"rank": 1}
    with pytest.raises(MethodError, match="within 10%: rank 64 has 65,536; state"):
        match("lora", 10**7, SMALL)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("ia3", {}, "'ia3' has no option of size"),
        ("full", {}, "'full' has no option of size"),
        ("peft", {"peft": {"peft_type": "LORA", "r": 8}}, "LORA.*; r is stated, leave it out"),
        (
            "peft",
            {"peft": {"peft_type": "P_TUNING", "num_virtual_tokens": 4, "encoder_hidden_size": 8}},
            "encoder_hidden_size is stated, leave it out",
        ),
        ("lora", {"rank": 8}, "all its options of size are set, .*; rank is stated, leave it out"),
    ],
)
def test_a_method_without_a_free_size_is_refused(
    name: str, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(MethodError, match=said):
        match(name, LORA_7B, **options)


def test_sizes_far_beyond_a_small_budget_are_not_tried() -> None:
    tried = []

    def count(shape: ModelShape, options: Any) -> int:
        tried.append(options.rank)
        return 1000 * int(options.rank)

    method = replace(METHODS["lora"], count_parameters=count)
    with pytest.raises(MethodError, match="rank 1 has 1,000; state"):
        match_parameters(method, method.options(), LLAMA_7B, 100, 0.1)
    assert max(tried) <= 2


@pytest.mark.parametrize(
    ("written", "meant"),
    [("4.2M", 4_200_000), ("850k", 850_000), ("1G", 10**9), (4194304, 4194304), ("4_194_304",
     4194304), (4.2e6, 4_200_000), ("lora", "lora"), ("3e6", 3_000_000)],
)  # fmt: skip
def test_numbers_are_written_as_people_do(written: Any, meant: Any) -> None:
    assert MatchSpec(params=written).params == meant


@pytest.mark.parametrize("written", ["4.2X", "-3M", "", True, [1], 0, "4 2M"])
def test_what_is_no_number_and_no_name_is_refused(written: Any) -> None:
    with pytest.raises(ValidationError):
        MatchSpec(params=written)
