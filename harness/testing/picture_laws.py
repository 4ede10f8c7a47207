"""The laws of prompts that take pictures, on a tiny random model of each family.

    class TestPicturesOfMine(PictureLaws):
        method = MINE

Shapes: P pictures and a last row of none, B rows, T queries, S keys, H heads, G key-value heads, d
head size, L prompt length, D hidden size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from harness.data.instructions import Example
from harness.methods.method import Method
from harness.methods.zero_init.attention import PromptAttention
from harness.models.families import FAMILIES
from harness.models.loading import load_trained, save_trained, trained_parameters
from harness.models.pictures import (
    PROJECTION,
    PassPictures,
    PictureFeatures,
    is_of_projection,
    pictures_of_rows,
    project,
    using_pictures,
)
from harness.models.shape import shape_of
from harness.testing.gradients import law_examples, taken_gradients, token_ids
from harness.testing.method_laws import SINGLE, attributes, perturb, tiny_model
from harness.training.loss import ResponseLoss, padded_batches
from harness.training.micro_batches import number_sequences

EXACT = 1e-10
"""Largest deviation from the formula in fp64, relative to the largest output."""
ENCODER = {"source": "some/encoder", "width": 6, "scales": [1, 2], "hidden_size": 5}
"""Never loaded: features are drawn."""
NAMES = ("cat", "dog", "frog")
ROWS = ("dog", None, "cat", "dog")
"""The pictures of a batch."""


def picture_features() -> PictureFeatures:
    """Random features of three pictures, the same at every call."""
    random = torch.Generator().manual_seed(5)
    return PictureFeatures(NAMES, torch.randn(3, 12, generator=random))


def pass_pictures(model: Any, names: Sequence[str | None]) -> PassPictures:
    """The pictures of a batch's rows, also where no row has one."""
    rows = [NAMES.index(name) if name is not None else len(NAMES) for name in names]
    return project(model, picture_features().features_NF, torch.tensor(rows))


@torch.no_grad()
def logits_of(model: Any, names: Sequence[str | None] | None, ids: Tensor | None = None) -> Tensor:
    """The logits of a batch whose rows have these pictures; None: of a pass without any."""
    ids = token_ids(len(ROWS)) if ids is None else ids
    told = {} if names is None else {"pictures": pass_pictures(model, names)}
    found: Tensor = model(ids, use_cache=False, **told).logits
    return found


@contextmanager
def recorded(model: Any) -> Iterator[list[tuple[PromptAttention, tuple[Any, ...], Any, Tensor]]]:
    """The calls of all prompts inside: module, arguments, keywords and output."""
    calls: list[tuple[PromptAttention, tuple[Any, ...], Any, Tensor]] = []

    def keep(module: Any, args: tuple[Any, ...], kwargs: Any, output: Any) -> None:
        calls.append((module, args, kwargs, output[0]))

    prompts = [module for module in model.modules() if isinstance(module, PromptAttention)]
    hooks = [one.register_forward_hook(keep, with_kwargs=True) for one in prompts]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def naive_attention(
    prompt: PromptAttention, args: tuple[Any, ...], kwargs: Any, image_BD: Tensor
) -> Tensor:
    """Attention as the paper writes it: I_p of each row is added to its prompt, and every score of
    every head is computed, row by row; (B, T, H, d)."""
    module, query_BHTd, key_BGSd, value_BGSd, mask, _ = args
    scale = kwargs.get("scaling") or query_BHTd.shape[-1] ** -0.5
    cap, heads = kwargs.get("softcap"), query_BHTd.shape[1]

    def of_heads(x_Gnd: Tensor) -> Tensor:
        return x_Gnd.repeat_interleave(heads // len(x_Gnd), dim=0)

    outputs = []
    for row, image_D in enumerate(image_BD):
        key_LGd, value_LGd = prompt.family.project(module, prompt.prompt() + image_D)
        prompt_key, prompt_value = (of_heads(x.transpose(0, 1)) for x in (key_LGd, value_LGd))
        query, key, value = query_BHTd[row], of_heads(key_BGSd[row]), of_heads(value_BGSd[row])
        own, other = ((query @ k.transpose(1, 2)) * scale for k in (key, prompt_key))
        if cap is not None:
            own, other = (cap * torch.tanh(x / cap) for x in (own, other))
        own = own + _added(mask, row, own)
        if prompt.gate is None:
            weights = torch.softmax(torch.cat([other, own], dim=-1), dim=-1)
            output = weights @ torch.cat([prompt_value, value], dim=1)
        else:
            strength = prompt.gate_strength().to(query)
            output = torch.softmax(own, -1) @ value
            output = output + strength * (torch.softmax(other, -1) @ prompt_value)
        outputs.append(output.transpose(0, 1))
    return torch.stack(outputs)


def _added(mask: Tensor | None, row: int, scores_HTS: Tensor) -> Tensor:
    """What a mask adds to the scores of a row."""
    if mask is None:
        seen = torch.ones(scores_HTS.shape[1:]).tril().bool()
    else:
        part = mask[min(row, len(mask) - 1)]
        if part.dtype != torch.bool:
            return part
        seen = part
    return torch.zeros(seen.shape, dtype=scores_HTS.dtype).masked_fill(~seen, -math.inf)


def formula_deviation(model: Any) -> float:
    """The largest deviation of any layer's attention from the formula, relative to the layer's
    largest output, on a batch of `ROWS`."""
    told = pass_pictures(model, ROWS)
    image_BD = told.projected_PD[told.row_R].detach()
    with torch.no_grad(), recorded(model) as calls:
        model(token_ids(len(ROWS)), use_cache=False, pictures=told)
        largest = 0.0
        for prompt, args, kwargs, output in calls:
            expected = naive_attention(prompt, args, kwargs, image_BD.to(output))
            deviation = (output - expected).abs().max() / expected.abs().max()
            largest = max(largest, deviation.item())
    assert calls
    return largest


class PictureLaws:
    """Subclass it as `Test...` and set `method`; pytest then runs every law on it."""

    method: ClassVar[Method]
    options: ClassVar[dict[str, Any]] = {}
    """As in a grid, beside the image encoder."""
    families: ClassVar[tuple[str, ...]] = tuple(FAMILIES)
    starts_as_base: ClassVar[bool] = True
    """Whether the untrained method gives the base model's logits, whatever the picture."""

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Runs a law on each family that it asks for."""
        if "family" in metafunc.fixturenames:
            metafunc.parametrize("family", self.families)

    def adapted(self, family: str, *, seed: int = 5, pictures: bool = True) -> Any:
        """A tiny model of the family with the method applied, with or without an encoder."""
        stated = self.options | ({"image_encoder": ENCODER} if pictures else {})
        options = self.method.options.model_validate(stated)
        return self.method.apply(tiny_model(family), options, seed)

    def test_attention_is_the_formulas(
        self, family: str, record_property: Callable[[str, object], None]
    ) -> None:
        deviation = formula_deviation(perturb(self.adapted(family)).double())
        record_property(f"deviation of {self.method.name} on {family}", deviation)
        # transformers' eager attention, which soft caps need, has a softmax in fp32.
        assert deviation <= (SINGLE if FAMILIES[family].soft_capped else EXACT)

    def test_another_picture_gives_other_logits(self, family: str) -> None:
        model = perturb(self.adapted(family))
        first, second = (logits_of(model, [name] * 4) for name in NAMES[:2])
        assert ((first - second).abs().amax((1, 2)) > 1e-3).all()

    def test_the_projection_is_counted_and_drawn_after_all_else(self, family: str) -> None:
        model, plain = self.adapted(family), self.adapted(family, pictures=False)
        shape, trained = shape_of(model.config), trained_parameters(model)
        stated = self.options | {"image_encoder": ENCODER}
        options = self.method.options.model_validate(stated)
        counted = sum(value.numel() for value in trained.values())
        assert counted == self.method.count_parameters(shape, options)
        assert all(value.dtype == torch.float32 for value in trained.values())
        for name, value in trained_parameters(plain).items():
            assert torch.equal(value, trained[name]), name
        added = trained.keys() - trained_parameters(plain).keys()
        assert added == {name for name in trained if is_of_projection(name)}
        assert len(added) == 2

    def test_without_a_picture_it_is_the_text_only_adapter(self, family: str) -> None:
        model, plain = perturb(self.adapted(family)), self.adapted(family, pictures=False)
        with torch.no_grad():
            for name, value in trained_parameters(plain).items():
                value.copy_(trained_parameters(model)[name])
        expected = logits_of(plain, None)
        assert torch.equal(logits_of(model, None), expected)
        without = logits_of(model, [None] * 4), logits_of(model, ROWS)[1]
        if FAMILIES[family].soft_capped:  # each row has keys of its own: other matrix products
            for found, wanted in zip(without, (expected, expected[1]), strict=True):
                torch.testing.assert_close(found, wanted, rtol=SINGLE, atol=SINGLE)
        else:
            assert torch.equal(without[0], expected)
            assert torch.equal(without[1], expected[1])

    def test_untrained_it_is_the_base_model_with_any_picture(self, family: str) -> None:
        if not self.starts_as_base:
            pytest.skip("this method changes the model before it is trained")
        expected = logits_of(tiny_model(family), None)
        assert torch.equal(logits_of(self.adapted(family), ROWS), expected)

    def test_the_order_of_a_batch_does_not_matter(self, family: str) -> None:
        model, order = perturb(self.adapted(family)), [2, 0, 3, 1]
        ids = token_ids(len(ROWS))
        moved = logits_of(model, [ROWS[place] for place in order], ids[order])
        expected = logits_of(model, ROWS, ids)[order]
        torch.testing.assert_close(moved, expected, rtol=SINGLE, atol=10 * SINGLE)

    def test_saved_and_loaded_it_gives_the_same_logits(self, family: str, tmp_path: Path) -> None:
        model = perturb(self.adapted(family))
        save_trained(model, tmp_path)
        fresh = self.adapted(family, seed=6)
        load_trained(fresh, tmp_path)
        assert torch.equal(logits_of(fresh, ROWS), logits_of(model, ROWS))

    @pytest.mark.parametrize("options", [{}, {"do_sample": True}, {"num_beams": 3}])
    def test_generation_with_a_cache_equals_generation_without(
        self, family: str, options: dict[str, Any]
    ) -> None:
        model, written, ids = perturb(self.adapted(family)), [], token_ids(len(ROWS))
        told = pictures_of_rows(model, picture_features(), ROWS, ids.device)
        for use_cache in (True, False):
            torch.manual_seed(4)  # generate() samples from the global generator
            with using_pictures(told):
                inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
                written.append(
                    model.generate(
                        **inputs, **options, use_cache=use_cache, pad_token_id=0, max_new_tokens=6
                    )
                )
        assert torch.equal(*written)

    def test_packed_rows_give_the_gradients_of_one_sequence_at_a_time(self, family: str) -> None:
        model = perturb(self.adapted(family)).double()
        loss = ResponseLoss(model, picture_features())
        examples = with_pictures(law_examples())
        expected = _gradients(model, _one_by_one(loss, examples))
        for budget, share in ((30, True), (1000, True), (1000, False)):
            sequences = number_sequences(examples)
            batches = loss.micro_batches(
                sequences, token_budget=budget, pad_token_id=0, device=torch.device("cpu"),
                share=share,
            )  # fmt: skip
            found = _gradients(model, [loss(batch) for batch in batches])
            for name, gradient in found.items():
                deviation = (gradient - expected[name]).norm() / expected[name].norm()
                assert deviation <= SINGLE / 5, f"{name}: {deviation:.2e}, {budget}, {share}"

    def test_forward_writes_nothing_onto_modules(self, family: str) -> None:
        model = perturb(self.adapted(family))
        before = attributes(model)
        logits_of(model, ROWS)
        with using_pictures(pass_pictures(model, ROWS)), torch.no_grad():
            model(token_ids(len(ROWS)), use_cache=True)
        assert attributes(model) == before

    def test_closed_gates_give_the_projection_no_gradient(self, family: str) -> None:
        model = self.adapted(family)
        loss = ResponseLoss(model, picture_features())
        found = _gradients(model, _one_by_one(loss, with_pictures(law_examples())))
        moved = {name for name, gradient in found.items() if gradient.any()}
        of_projection = {name for name in found if is_of_projection(name)}
        assert of_projection.isdisjoint(moved) == self.starts_as_base
        assert moved

    def test_the_projection_computes_in_fp32_under_autocast(self, family: str) -> None:
        model = perturb(self.adapted(family))
        with torch.autocast("cpu", torch.bfloat16):
            told = pass_pictures(model, ROWS)
            rounded = model(token_ids(len(ROWS)), use_cache=False, pictures=told).logits
        assert told.projected_PD.dtype == torch.float32
        expected = getattr(model.get_base_model().get_decoder(), PROJECTION)(
            picture_features().features_NF
        )
        assert torch.equal(told.projected_PD[:-1], expected)
        exact = logits_of(model, ROWS)
        assert (rounded.float() - exact).abs().mean() < 2**-4 * exact.abs().mean()


def with_pictures(examples: Sequence[Example]) -> list[Example]:
    """The examples, in turn with each of the pictures and with none."""
    names = (*NAMES, None)
    return [replace(one, picture=names[n % len(names)]) for n, one in enumerate(examples)]


def _one_by_one(loss: ResponseLoss, examples: Sequence[Example]) -> list[Tensor]:
    batches = (
        padded_batches([one], 1000, pad_token_id=0, device=torch.device("cpu"))
        for one in number_sequences(examples)
    )
    return [loss(batch) for each in batches for batch in each]


def _gradients(model: Any, losses: Sequence[Tensor]) -> dict[str, Tensor]:
    torch.stack(list(losses)).sum().backward()
    return taken_gradients(model)
