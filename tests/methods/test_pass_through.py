"""Every type of the installed PEFT: the laws of all methods, or a refusal by name before a run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft import PeftModel
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from pydantic import ValidationError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from harness.errors import MethodError
from harness.methods import METHODS
from harness.methods.pass_through import PeftOptions
from harness.methods.peft_settings import option_names, usable_types
from harness.methods.peft_types import BEFORE_TEXT, QUANTISED, REFUSED_DROPOUTS, REFUSED_TYPES
from harness.methods.row_dropout import RowDropout
from harness.models.adapters import attach_adapter
from harness.models.families import FAMILIES
from harness.models.loading import save_trained, trained_parameters
from harness.models.shape import shape_of
from harness.spec import describe_faults
from harness.testing import MethodLaws
from harness.testing.gradients import gradients, law_examples, plain_gradients, token_ids
from harness.testing.method_laws import perturb, tiny_model
from harness.training.spec import TrainSpec
from harness.training.step import TrainStep

PEFT = METHODS["peft"]
SIZES: dict[str, dict[str, Any]] = {
    "ADALORA": {"init_r": 6, "target_r": 3, "tinit": 1, "tfinal": 2, "total_step": 8},
    "ADAMSS": {"r": 6, "num_subspaces": 3},
    "ADAPTION_PROMPT": {"adapter_len": 4, "adapter_layers": 2},
    "C3A": {"block_size": 8},
    "CARTRIDGE": {"num_virtual_tokens": 4},
    "FOURIERFT": {"n_frequency": 50},
    "MISS": {"r": 4},
    "OFT": {"oft_block_size": 8, "r": 0},
    "PREFIX_TUNING": {"num_virtual_tokens": 4},
    "PROMPT_TUNING": {"num_virtual_tokens": 4},
    "PSOFT": {"r": 4},
    "P_TUNING": {"num_virtual_tokens": 4, "encoder_hidden_size": 8},
    "ROAD": {"group_size": 8},
    "SHIRA": {"r": 4},
    "TRAINABLE_TOKENS": {"token_indices": [3, 4]},
    "VBLORA": {"vector_length": 8, "num_vectors": 10},
    "WAVEFT": {"n_frequency": 50},
}
"""Sizes that fit the tiny model; PEFT's defaults elsewhere."""
CHANGES_AT_THE_START = frozenset(
    {
        *("C3A", "CARTRIDGE", "DEFT", "FOURIERFT", "FROD", "HRA", "OSF", "PREFIX_TUNING"),
        *("PROMPT_TUNING", "P_TUNING", "UNILORA", "VBLORA"),
    }
)
"""Types that begin from another model than the base, by random numbers or by rounding."""
IN_CACHE = ("CARTRIDGE", "PREFIX_TUNING")
QUICK = ("OFT", "LOHA", "P_TUNING", "CARTRIDGE", "SHIRA")
VARIANTS: dict[str, dict[str, Any]] = {
    "DoRA": {"peft_type": "LORA", "use_dora": True, "lora_dropout": 0.3},
    "PiSSA": {"peft_type": "LORA", "init_lora_weights": "pissa"},
    "OLoRA": {"peft_type": "LORA", "init_lora_weights": "olora"},
    "Projected": {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 4, "prefix_projection": True,
                  "encoder_hidden_size": 8},
    "AllLinear": {"peft_type": "LOKR", "target_modules": "all-linear", "r": 4},
    "SomeLayers": {"peft_type": "OFT", "oft_block_size": 4, "r": 0, "layers_to_transform": [1, 3]},
    "BlockDiagonal": {"peft_type": "LORA", "r": 4, "target_modules": ["up_proj", "down_proj"],
                      "use_bdlora": {"nblocks": 2, "target_modules_bd_a": ["down_proj"],
                                     "target_modules_bd_b": ["up_proj"]}},
}  # fmt: skip


def entry(kind: str, **options: Any) -> dict[str, Any]:
    return {"peft_type": kind, **SIZES.get(kind, {}), **options}


def adapted(settings: dict[str, Any], family: str = "llama") -> Any:
    return PEFT.apply(tiny_model(family), PeftOptions(peft=settings), 5)


@torch.no_grad()
def logits(model: nn.Module) -> torch.Tensor:
    found: torch.Tensor = model(token_ids()).logits
    return found


def _class_of(settings: dict[str, Any], *, slow: bool) -> type[MethodLaws]:
    kind = settings["peft_type"]
    attributes = {
        "method": PEFT,
        "options": {"peft": settings},
        "families": ("llama",),
        "starts_as_base": kind not in CHANGES_AT_THE_START
        and settings.get("init_lora_weights") not in ("pissa", "olora"),
        "generates_without_cache": kind not in IN_CACHE,
        "pytestmark": [pytest.mark.slow] if slow else [],
        "test_another_family_is_refused": None,  # most take any family
    }
    if kind == "ADAMSS":  # computes in the precision that it began in; see below
        attributes["test_any_token_budget_gives_the_gradient_of_one_sequence_at_a_time"] = None
    if settings.get("init_lora_weights"):  # the base keeps what of it is not in the adapter
        attributes["test_training_moves_what_trains_and_no_bit_of_the_rest"] = None
    return type(f"TestLawsOf{kind}", (MethodLaws,), attributes)


for _kind in usable_types():
    _name = "TestLawsOf" + _kind.title().replace("_", "")
    globals()[_name] = _class_of(entry(_kind), slow=_kind not in QUICK)
for _name, _settings in VARIANTS.items():
    globals()[f"TestLawsOf{_name}"] = _class_of(_settings, slow=True)


def test_every_type_is_run_or_refused_by_name() -> None:
    installed = {str(kind.value) for kind in PEFT_TYPE_TO_CONFIG_MAPPING}
    assert set(usable_types()) == installed - REFUSED_TYPES.keys()
    assert len(usable_types()) >= 30
    for kind in installed & REFUSED_TYPES.keys():
        assert line_of({"peft_type": kind}).startswith(f"peft.peft_type: {kind} ")


@pytest.mark.parametrize("kind", usable_types())
def test_peft_itself_loads_what_was_saved(kind: str, tmp_path: Path) -> None:
    model = perturb(adapted(entry(kind)))
    save_trained(model, tmp_path)
    expected = logits(model)
    assert torch.equal(logits(PeftModel.from_pretrained(tiny_model("llama"), tmp_path).eval()),
                       expected)  # fmt: skip
    assert torch.equal(logits(attach_adapter(tiny_model("llama"), tmp_path)), expected)


def test_adamss_has_the_gradient_of_one_sequence_at_a_time_in_single_precision() -> None:
    model = perturb(adapted(entry("ADAMSS")))
    expected = plain_gradients(model, law_examples())
    for budget in (14, 1000):
        for name, gradient in gradients(model, law_examples(), budget).items():
            deviation = (gradient - expected[name]).norm() / expected[name].norm()
            assert deviation <= 2e-5, f"{name}: {deviation:.2e}"


DROPOUTS = [
    (kind, name)
    for kind in usable_types()
    for name in option_names(kind)
    if name.endswith("dropout") and (kind, name) not in REFUSED_DROPOUTS
]


@pytest.mark.parametrize(("kind", "name"), DROPOUTS)
def test_masks_of_dropouts_belong_to_sequences(kind: str, name: str) -> None:
    low_rank = {"r": 4} if kind == "SUPERTUNING" else {}  # whose dropout is of that part
    model = perturb(adapted(entry(kind, **low_rank, **{name: 0.4}))).double()
    assert any(isinstance(module, RowDropout) for module in model.modules())
    expected = plain_gradients(model, law_examples())
    for budget in (14, 1000):
        for name, found in gradients(model, law_examples(), budget).items():
            assert (found - expected[name]).norm() <= 1e-5 * expected[name].norm(), name


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_that_peft_has_no_default_of_has_ours(family: str) -> None:
    model = adapted({"peft_type": "LOHA", "r": 2}, family)
    names = {name.rpartition(".")[2] for name in model.base_model.targeted_module_names}
    assert names <= {"q_proj", "v_proj", "qkv_proj", "query_key_value"}
    counted = PEFT.count_parameters(
        shape_of(model.config), PeftOptions(peft={"peft_type": "LOHA", "r": 2})
    )
    assert counted == sum(value.numel() for value in trained_parameters(model).values()) > 0


def line_of(settings: Any) -> str:
    with pytest.raises(ValidationError) as found:
        PeftOptions(peft=settings)
    (line,) = describe_faults(found.value, "", PeftOptions)
    assert "\n" not in line
    return line.removeprefix(": ")


@pytest.mark.parametrize(
    ("settings", "begins"),
    [
        ("OFT", "peft: must be a mapping with `peft_type` and its options"),
        ({"oft_block_size": 8}, "peft: `peft_type` is missing; add the name of a type (known: "),
        ({"peft_type": "OFTT"}, "peft.peft_type: PEFT has no 'OFTT'; did you mean 'OFT'?"),
        (
            {"peft_type": "OFT", "oft_blocksize": 8},
            "peft.oft_blocksize: OFT has no such option; did you mean 'oft_block_size'? (known: r,",
        ),
        (
            {"peft_type": "OFT", "oft_block_size": 2.5},
            "peft.oft_block_size: must be a whole number",
        ),
        ({"peft_type": "LORA", "use_dora": 1.5}, "peft.use_dora: must be true or false"),
        ({"peft_type": "LORA", "bias": "some"}, "peft.bias: must be one of none, all, lora_only"),
        ({"peft_type": "OFT", "r": 8, "oft_block_size": 8}, "peft: PEFT refuses these options ("),
        ({"peft_type": "LORA", "init_lora_weights": "eva"}, "peft.init_lora_weights: eva begins"),
        (
            {"peft_type": "LORA", "init_lora_weights": "pissa_niter_4"},
            "peft.init_lora_weights: pis",
        ),
        ({"peft_type": "LORA", "kasa_config": {"beta": 1}}, "peft.kasa_config: cuts the base"),
        ({"peft_type": "TRAINABLE_TOKENS"}, "peft.token_indices: is missing"),
        ({"peft_type": "LORA", "task_type": "SEQ_CLS"}, "peft.task_type: must be CAUSAL_LM"),
        ({"peft_type": "LORA", "modules_to_save": ["lm_head"]}, "peft.modules_to_save: copies"),
        ({"peft_type": "P_TUNING"}, "peft.num_virtual_tokens: is missing, and PEFT has no default"),
        ({"peft_type": "LOKR", "rank_dropout": 0.1}, "peft.rank_dropout: draws its masks for a wh"),
    ],
)
def test_a_wrong_entry_is_one_line_with_its_place(settings: Any, begins: str) -> None:
    assert line_of(settings).startswith(begins)


def test_all_faults_of_an_entry_are_told_at_once() -> None:
    with pytest.raises(ValidationError) as found:
        PeftOptions(peft={"peft_type": "LORA", "rr": 8, "lora_alpah": 1, "lora_dropout": 2})
    assert len(describe_faults(found.value, "", PeftOptions)) == 3


def test_identity_is_the_type_and_what_differs_from_the_defaults() -> None:
    options = PeftOptions(
        peft={
            "target_modules": ["v_proj", "q_proj"],
            "peft_type": "lora",
            "task_type": "CAUSAL_LM",
            "lora_alpha": 16.0,
            "r": 8,
        }
    )
    assert options.identity() == {
        "peft_type": "LORA",
        "lora_alpha": 16,
        "target_modules": ["q_proj", "v_proj"],
    }
    assert PeftOptions(peft=options.peft) == options


@pytest.mark.parametrize("layers", [[1], [3, 1]])
def test_layers_are_a_set(layers: list[int]) -> None:
    written = [layers, sorted(layers), layers[0] if len(layers) == 1 else layers[::-1]]
    entries = [PeftOptions(peft={"peft_type": "LORA", "layers_to_transform": one})
               for one in written]  # fmt: skip
    assert {str(one.identity()) for one in entries} == {str(entries[1].identity())}


@pytest.mark.parametrize(
    "settings",
    [
        {"peft_type": "LORA", "init_lora_weights": "mica"},
        {"peft_type": "LORA", "target_modules": ["layers.5.self_attn.q_proj"]},
        {"peft_type": "ADAPTION_PROMPT", "adapter_len": 3, "adapter_layers": 5},
        {"peft_type": "LORA", "target_modules": ["embed_tokens", "lm_head", "q_proj"]},
        {"peft_type": "TINYLORA", "weight_tying": 0.5},
    ],
)
def test_counts_of_many_layers_are_those_of_the_model(settings: dict[str, Any]) -> None:
    shape = shape_of(tiny_model("llama").config).model_copy(update={"num_hidden_layers": 7})
    options = PeftOptions(peft=settings)
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(shape.model_type, **shape.model_dump(exclude={"model_type"},
                                                                  exclude_none=True))
    )  # fmt: skip
    trained = trained_parameters(PEFT.apply(model, options, 0))
    assert PEFT.count_parameters(shape, options) == sum(one.numel() for one in trained.values())


def test_types_for_quantised_bases_are_those_that_peft_has_layers_for() -> None:
    tuners = Path(peft.__file__).parent / "tuners"
    known = {
        kind
        for kind in usable_types()
        if (tuners / kind.lower() / "bnb.py").exists()
        or "resolve_quantization_backend" in (tuners / kind.lower() / "model.py").read_text()
    }
    untouched = {"ADAPTION_PROMPT", *IN_CACHE, *BEFORE_TEXT, "LN_TUNING", "TRAINABLE_TOKENS"}
    assert known | untouched == QUANTISED


def test_options_that_do_not_fit_a_model_are_refused_before_it_is_loaded() -> None:
    shape = shape_of(tiny_model("llama").config)
    for settings, said in (
        ({"peft_type": "PSOFT", "r": 32}, "must be less than or equal to"),
        ({"peft_type": "TRAINABLE_TOKENS", "token_indices": []}, "TRAINABLE_TOKENS train no param"),
        ({"peft_type": "OFT", "oft_block_size": 5, "r": 0}, "Invalid `oft_block_size` .5.! A"),
        ({"peft_type": "LOHA", "target_modules": ["w_proj"]}, "w_proj"),
        ({"peft_type": "LOHA", "target_modules": ["q_proj", "w_proj"]}, "no module w_proj that"),
    ):
        with pytest.raises(MethodError, match=said):
            PEFT.count_parameters(shape, PeftOptions(peft=settings))


def test_what_was_asked_once_is_known_without_peft(tmp_path: Path) -> None:
    code = (
        "import sys, json\n"
        "from harness.methods import METHODS\n"
        "from harness.models.shape import ModelShape\n"
        "shape = ModelShape(num_hidden_layers=2, hidden_size=32, intermediate_size=48,"
        " num_attention_heads=4, vocab_size=61)\n"
        "method = METHODS['peft']\n"
        "options = method.options(peft={'peft_type': 'OFT', 'oft_block_size': 8, 'r': 0})\n"
        "count = method.count_parameters(shape, options)\n"
        "print(json.dumps([count, options.peft, 'peft' in sys.modules, 'torch' in sys.modules]))\n"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True,
            env={"XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path)},
        )
        for _ in range(2)
    ]  # fmt: skip
    first, second = (json.loads(run.stdout) for run in runs)
    assert first[:2] == second[:2]
    assert first[2:] == [True, True]
    assert second[2:] == [False, False]


def test_the_page_names_every_type() -> None:
    page = (Path(__file__).parents[2] / "docs" / "peft.md").read_text(encoding="utf-8")
    runs, refused = page.split("## Refused by name")
    for kind in usable_types():
        assert f"\n| {kind} | all" in runs, kind
    for kind, why in REFUSED_TYPES.items():
        assert f"\n| {kind} | {why} |" in refused, kind


@pytest.mark.parametrize("kind", ["OFT", "P_TUNING", "CARTRIDGE", "SHIRA"])
def test_a_stopped_training_resumes_with_the_same_bits(kind: str) -> None:
    spec = TrainSpec(learning_rate=0.01, batch_size=9, token_budget=60)
    whole, first, second = (
        TrainStep(
            perturb(adapted(entry(kind))), spec,
            device=torch.device("cpu"), precision="fp32", pad_token_id=0,
        )
        for _ in range(3)
    )  # fmt: skip
    for train_step, steps in ((whole, range(4)), (first, range(2)), (second, range(2, 4))):
        if train_step is second:
            second.load_state(first.state())
        for step in steps:
            train_step.backward(law_examples(), dropout_seed=step)
            train_step.update(0.01)
    expected = trained_parameters(whole.model)
    for name, value in trained_parameters(second.model).items():
        assert torch.equal(value, expected[name]), name
