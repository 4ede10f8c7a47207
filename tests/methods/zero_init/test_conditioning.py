"""What a picture adds, against the formula written out, and which families need no keys of it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from harness.methods import METHODS
from harness.methods.zero_init import conditioning
from harness.methods.zero_init.options import GatedPromptOptions, count_prompts
from harness.methods.zero_init.projection import ImageProjection
from harness.models.image_encoder import ImageEncoderSpec
from harness.models.loading import trained_parameters
from harness.models.pictures import PROJECTION, project
from harness.testing import PictureLaws, perturb, tiny_model
from harness.testing.picture_laws import (
    ENCODER,
    EXACT,
    ROWS,
    formula_deviation,
    logits_of,
    pass_pictures,
    picture_features,
)
from tests.fixtures.reference import Sizes, reference_logits
from tests.fixtures.tiny_models import (
    HEADS,
    LLAMA_7B,
    PROMPT_METHODS,
    ZERO_INIT_METHODS,
    adapted,
    stir,
    token_ids,
)
from tests.fixtures.tiny_models import tiny_model as tiny_llama
from tests.methods.zero_init.test_formula import causal_view, deviation, make_exact, plain, sizes_of

LINEAR = ("llama", "mistral", "qwen2", "phi3", "gpt_neox")
DEFAULT = {"source": "openai/clip-vit-base-patch16"}


def projected(weights: dict[str, Tensor], features_PF: Tensor) -> Tensor:
    """I_p as the formula has it, (P, D)."""
    down, up = (weights[f"model.{PROJECTION}.prompt_image_{n}.weight"] for n in ("down", "up"))
    hidden = features_PF.double() @ down.T
    return (0.5 * hidden * (1 + torch.erf(hidden / 2**0.5))) @ up.T


def reference_with(
    weights: dict[str, Tensor], sizes: Sizes, ids: Tensor, images: list[Tensor | None]
) -> Tensor:
    """The reference's logits, row by row: I_p is added to every row of every layer's prompt."""
    seen, positions = causal_view(torch.ones_like(ids))
    found = []
    for row, image in enumerate(images):
        part = slice(row, row + 1)
        own = dict(weights)
        for layer in sizes.adapted if image is not None else ():
            name = f"model.layers.{layer}.self_attn.prompt.prompt_rows"
            own[name] = weights[name] + image
        found.append(reference_logits(own, sizes, ids[part], seen[part], positions[part]))
    return torch.cat(found)


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("method", ["random-init", "zero-init-linear"])
def test_logits_and_gradients_equal_the_formula(method: str, heads: str) -> None:
    model = make_exact(stir(adapted(method, tiny_llama(heads), image_encoder=ENCODER)))
    ids, features = token_ids(), picture_features().features_NF
    weights = {plain(name): value.detach().double() for name, value in model.named_parameters()}
    leaves = {
        plain(name): weights[plain(name)].clone().requires_grad_()
        for name in trained_parameters(model)
    }
    image_PD = projected(weights | leaves, features)
    expected = reference_with(
        weights | leaves, sizes_of(model, method), ids, [image_PD[1], None, image_PD[0]]
    )
    told = project(model, features, torch.tensor([1, 3, 0]))
    logits = model(ids, use_cache=False, pictures=told).logits
    assert deviation(logits, expected) < EXACT
    weigh = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    (logits * weigh).sum().backward()
    (expected * weigh.double()).sum().backward()
    for name, parameter in trained_parameters(model).items():
        assert leaves[plain(name)].grad.abs().max() > 0, name
        assert deviation(parameter.grad, leaves[plain(name)].grad) < EXACT, name


def law(method: str) -> PictureLaws:
    return type("_Law", (PictureLaws,), {"method": METHODS[method]})()


@pytest.mark.parametrize("family", LINEAR)
@pytest.mark.parametrize("method", ZERO_INIT_METHODS)
def test_linear_families_make_no_keys_of_a_picture(
    method: str, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = perturb(law(method).adapted(family))

    without = logits_of(model, None)
    # Whoever called it would fail.
    monkeypatch.setattr("harness.methods.zero_init.attention.prompts_of_pictures", None)
    assert not torch.equal(logits_of(model, ROWS), without)


@pytest.mark.parametrize("method", ZERO_INIT_METHODS)
def test_olmo_is_linear_where_it_clips_nothing(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = perturb(law(method).adapted("olmo")).double()
    clipped = logits_of(model, ROWS)
    model.get_base_model().config.clip_qkv = None
    for layer in model.get_base_model().model.layers:
        layer.self_attn.config.clip_qkv = None
    monkeypatch.setattr("harness.methods.zero_init.attention.prompts_of_pictures", None)
    assert formula_deviation(model) <= EXACT
    assert not torch.equal(logits_of(model, ROWS), clipped)


@pytest.mark.parametrize("family", ["qwen3", "olmo2", "gemma3_text", "olmo"])
def test_the_identity_does_not_hold_where_it_is_not_claimed(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = perturb(law("zero-init-linear").adapted(family)).double()
    assert formula_deviation(model) <= EXACT
    monkeypatch.setattr("harness.models.families.Family.projects_linearly", lambda *_: True)
    assert formula_deviation(model) > 0.01


class _Replaced(nn.Module):
    """A projection that an adapter or a quantiser has put in the place of a linear layer: it has no
    weight to be sliced."""

    def __init__(self, linear: nn.Module) -> None:
        super().__init__()
        self.inner = linear
        self.scale = 1.5

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) + self.scale * torch.roll(x, 1, -1)[..., :1]


@pytest.mark.parametrize(
    ("family", "name"),
    [("llama", "v_proj"), ("qwen2", "v_proj"), ("phi3", "qkv_proj"),
     ("gpt_neox", "query_key_value")],
)  # fmt: skip
def test_projections_that_are_replaced_are_called(family: str, name: str) -> None:
    model = perturb(law("zero-init-linear").adapted(family)).double()
    before = logits_of(model, ROWS)
    for module in list(model.modules()):
        if hasattr(module, name):
            setattr(module, name, _Replaced(getattr(module, name)))
    assert formula_deviation(model) <= EXACT
    assert not torch.allclose(logits_of(model, ROWS), before)


def test_llama_7b_with_the_default_encoder_trains_what_the_paper_counts() -> None:
    method, entry = METHODS["zero-init-linear"], {"image_encoder": DEFAULT}
    options = method.options.model_validate(entry)
    assert isinstance(options, GatedPromptOptions)
    stated = LLAMA_7B.model_dump(exclude_none=True, exclude={"model_type"})
    with torch.device("meta"):
        base = LlamaForCausalLM(LlamaConfig(**stated))
    model = method.apply(base, options, 0)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    on_meta = sum(value.numel() for value in trained_parameters(model).values())
    assert on_meta == count_prompts(LLAMA_7B, options) == 1_786_816
    assert ImageEncoderSpec.model_validate(DEFAULT).count_projection(4096) == 557_056


def test_the_projection_begins_as_its_linear_layers_do() -> None:
    projection = ImageProjection()
    rng = torch.Generator().manual_seed(0)
    projection.add(
        "default", num_features=400, hidden_size=25, model_size=64, rng=rng,
        device=torch.device("cpu"),
    )  # fmt: skip
    for linear in (projection.prompt_image_down["default"], projection.prompt_image_up["default"]):
        assert isinstance(linear, nn.Linear)
        assert linear.bias is None
        bound = linear.in_features**-0.5
        assert 0.98 * bound < linear.weight.abs().max() <= bound
    assert not projection(torch.zeros(2, 400)).any()


@pytest.mark.parametrize("method", PROMPT_METHODS)
def test_a_layer_with_pictures_compiles_to_one_graph(method: str) -> None:
    torch.compiler.reset()
    model = perturb(law(method).adapted("llama"))
    told, ids = pass_pictures(model, ROWS), token_ids(len(ROWS))
    with torch.no_grad():
        expected = model(ids, use_cache=False, pictures=told).logits
        model.get_base_model().get_decoder().layers[3].compile(backend="aot_eager", fullgraph=True)
        found = model(ids, use_cache=False, pictures=told).logits
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_gradient_checkpointing_keeps_the_gradients() -> None:
    found = []
    for checkpointed in (False, True):
        model = perturb(law("zero-init-linear").adapted("llama")).train()
        if checkpointed:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        told = pass_pictures(model, ROWS)
        model(token_ids(len(ROWS)), use_cache=False, pictures=told).logits.square().sum().backward()
        found.append({name: v.grad for name, v in trained_parameters(model).items()})
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name], rtol=1e-5, atol=1e-5)


def test_the_picture_term_is_zero_for_rows_without_a_picture() -> None:
    model = perturb(law("zero-init-linear").adapted("qwen2"))
    told = pass_pictures(model, ROWS)
    attention = model.get_base_model().model.layers[3].self_attn
    prompt = attention.prompt
    term = conditioning.picture_term(
        attention, prompt.family.project, told, prompt.gate_strength(),
        torch.zeros(len(ROWS), 5, 4, 8), packed=False,
    )  # fmt: skip
    assert term.shape == (len(ROWS), 1, 4, 8)
    assert [bool(row.any()) for row in term] == [name is not None for name in ROWS]


def test_the_base_of_the_tests_has_biases_on_its_values() -> None:
    assert tiny_model("qwen2").model.layers[0].self_attn.v_proj.bias.any()
