"""What AdaLoRA, LoRA-FA and a prefix from a text do between steps, against PEFT's own code."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import initialize_kv_prefix_from_text
from peft.optimizers import create_lorafa_optimizer
from pydantic import ValidationError

from harness.data.instructions import Example
from harness.errors import GridError, MethodError
from harness.grid.resolver import resolve_grid
from harness.methods import METHODS
from harness.methods.pass_through import PeftOptions
from harness.models.adapter_folder import ADAPTER
from harness.models.loading import trained_parameters
from harness.models.shape import shape_of
from harness.testing.gradients import token_ids
from harness.testing.method_laws import tiny_model
from harness.training.callback import OnStep
from harness.training.checkpoint import Checkpoints
from harness.training.loop import fit
from harness.training.method_statistics import HookState
from harness.training.signals import Stopped
from harness.training.spec import TrainSpec

PEFT = METHODS["peft"]
ADALORA = {
    **{"peft_type": "ADALORA", "init_r": 6, "target_r": 2, "tinit": 2, "tfinal": 3},
    **{"total_step": 12, "deltaT": 2, "orth_reg_weight": 0.3},
}
EXAMPLES = [Example(tuple(token_ids(1, 8, seed=n)[0].tolist()), 3) for n in range(22)]


def spec(**changes: object) -> TrainSpec:
    settings = {"learning_rate": 1e-2, "max_steps": 12, "batch_size": 4, "schedule": "constant"}
    return TrainSpec.model_validate(settings | changes)


def train(
    model: Any, options: PeftOptions, *, folder: Path | None = None, stop_at: int | None = None
) -> list[float]:
    hook = PEFT.hook_of(model, options)
    assert hook is not None
    kept = None if folder is None else Checkpoints(folder, {}, minutes=10)
    losses: list[float] = []

    def on_step(record: Any) -> None:
        losses.append(record.loss)
        if kept is not None and record.step == stop_at:
            kept.flags.stop = True

    fit(
        model, EXAMPLES, spec(), seed=0, device="cpu", precision="fp32", pad_token_id=0, hook=hook,
        callbacks=[HookState(hook, None), OnStep(on_step), *([kept] if kept else [])],
        resume=kept.latest() if kept else None,
    )  # fmt: skip
    return losses


def singular_values(model: Any) -> torch.Tensor:
    return torch.cat([v.flatten() for k, v in trained_parameters(model).items() if "lora_E" in k])


def test_adalora_is_pefts_own_loop() -> None:
    """The same gradients, masks and penalty as PEFT's forward and `update_and_allocate` give."""
    options = PeftOptions(peft=ADALORA)
    ours, theirs = (PEFT.apply(tiny_model("llama"), options, 5) for _ in range(2))
    hook = PEFT.hook_of(ours, options)
    assert hook is not None
    optimizers = [torch.optim.SGD(trained_parameters(m).values(), lr=0.1) for m in (ours, theirs)]
    ids = torch.randint(3, 60, (2, 9), generator=torch.Generator().manual_seed(1))
    for step in range(1, 13):
        for model, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            if model is theirs:
                model(input_ids=ids, labels=ids).loss.backward()
            else:
                logits = model(input_ids=ids).logits[:, :-1]
                loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
                penalty = hook.penalty()
                assert penalty is not None
                (loss + penalty).backward()
            optimizer.step()
            if model is theirs:
                model.base_model.update_and_allocate(step)
            else:
                hook.after_step()
        for name, value in trained_parameters(theirs).items():
            torch.testing.assert_close(trained_parameters(ours)[name], value, rtol=1e-4, atol=1e-6)
    assert int((singular_values(ours) != 0).sum()) == 2 * 8  # target_r of each of the matrices


def test_adalora_is_resumed_to_the_same_bits(tmp_path: Path) -> None:
    options = PeftOptions(peft=ADALORA)
    whole = PEFT.apply(tiny_model("llama"), options, 5)
    train(whole, options)
    for stop_at in (1, 5, 9, 11):  # before the first mask, within, at the last one, behind it
        with pytest.raises(Stopped):
            train(PEFT.apply(tiny_model("llama"), options, 5), options, folder=tmp_path,
                  stop_at=stop_at)  # fmt: skip
    resumed = PEFT.apply(tiny_model("llama"), options, 5)
    train(resumed, options, folder=tmp_path)
    for name, value in trained_parameters(whole).items():
        assert torch.equal(value, trained_parameters(resumed)[name]), name
    assert int((singular_values(whole) != 0).sum()) == 2 * 8


def test_adalora_is_of_one_device() -> None:
    options = PeftOptions(peft=ADALORA)
    hook = PEFT.hook_of(PEFT.apply(tiny_model("llama"), options, 5), options)
    assert hook is not None
    assert not hook.parallel
    raw = {
        "name": "mine",
        "models": {"small": {"source": "x/small", "shape": shape_of(tiny_model("llama").config)}},
        "tasks": ["arc_easy"],
        "methods": {"ada": {"peft": ADALORA}, "lora": {}},
        "gpus_per_cell": 2,
        "blocks": [{"methods": ["ada", "lora"]}],
    }
    with pytest.raises(GridError) as found:
        resolve_grid(raw, place="mine.yaml")
    assert found.value.args[0].splitlines() == [
        "mine.yaml: ada: ADALORA moves its ranks between steps, which one device does; put it in a "
        "block with gpus_per_cell: 1"
    ]


@pytest.mark.parametrize(("steps", "told"), [(8, True), (9, False), (12, False)])
def test_a_training_that_ends_before_adaloras_budget_does_is_told(
    steps: int, told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    options = PeftOptions(peft=ADALORA)  # total_step 12, tfinal 3
    hook = PEFT.hook_of(PEFT.apply(tiny_model("llama"), options, 5), options)
    assert hook is not None
    hook.prepare(None, steps)
    assert ("comes down to target_r 2 at step total_step - tfinal = 9" in caplog.text) is told


def test_lora_fa_takes_the_step_of_pefts_optimizer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peft.optimizers.lorafa.is_bf16_available", lambda: False)
    settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 8}
    options = PeftOptions(peft=settings, lora_fa=True)
    ours = PEFT.apply(tiny_model("llama"), options, 5)
    theirs = PEFT.apply(tiny_model("llama"), PeftOptions(peft=settings), 5)
    their_optimizer = create_lorafa_optimizer(theirs, r=4, lora_alpha=8, lr=0.01, weight_decay=0.0)
    trained = trained_parameters(ours)
    assert trained.keys() == trained_parameters(theirs).keys()  # B alone
    assert all(".lora_B." in name for name in trained)
    counted = PEFT.count_parameters(shape_of(ours.config), options)
    assert counted == sum(value.numel() for value in trained.values())
    our_optimizer = torch.optim.AdamW(trained.values(), lr=0.01, weight_decay=0.0, eps=1e-6)
    hook = PEFT.hook_of(ours, options)
    assert hook is not None
    ids = torch.randint(3, 60, (2, 9), generator=torch.Generator().manual_seed(1))
    for _ in range(4):
        for model, optimizer in ((ours, our_optimizer), (theirs, their_optimizer)):
            optimizer.zero_grad()
            # So large that epsilon, which PEFT adds elsewhere than torch, is nothing beside it.
            (1e4 * model(input_ids=ids, labels=ids).loss).backward()
            if model is ours:
                hook.change_gradients()
            optimizer.step()
    for name, value in trained_parameters(theirs).items():
        torch.testing.assert_close(trained[name], value, rtol=1e-2, atol=1e-5)


def test_lora_fas_gradient_is_the_formulas() -> None:
    options = PeftOptions(peft={"peft_type": "LORA", "r": 4, "lora_alpha": 12}, lora_fa=True)
    model = PEFT.apply(tiny_model("llama"), options, 5)
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    a, b = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
    b.grad = torch.randn(b.shape, generator=torch.Generator().manual_seed(0))
    expected = (4 / 12) ** 2 * b.grad @ torch.linalg.inv(a @ a.T)
    hook = PEFT.hook_of(model, options)
    assert hook is not None
    hook.change_gradients()
    torch.testing.assert_close(b.grad, expected, rtol=1e-4, atol=1e-6)


def _tokenizer(text: str, **_: Any) -> dict[str, Any]:
    ids = [3 + ord(letter) % 50 for letter in text]
    return {"input_ids": torch.tensor([ids]) if _ else ids}


def test_a_prefix_begins_as_pefts_from_the_same_text() -> None:
    settings = {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 5}
    options = PeftOptions(peft=settings, init_text="Think step by step.")
    ours = PEFT.apply(tiny_model("llama"), options, 5)
    theirs = copy.deepcopy(ours)
    hook = PEFT.hook_of(ours, options)
    assert hook is not None
    with torch.no_grad():
        hook.prepare(_tokenizer, 12)
    initialize_kv_prefix_from_text(
        theirs, lambda text, **kind: _tokenizer(text, **kind), text="Think step by step.",
        use_chat_template=False,
    )  # fmt: skip
    for name, value in trained_parameters(theirs).items():
        assert torch.equal(trained_parameters(ours)[name], value), name


def test_a_text_that_is_too_short_is_one_line() -> None:
    settings = {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 5}
    options = PeftOptions(peft=settings, init_text="No.")
    hook = PEFT.hook_of(PEFT.apply(tiny_model("llama"), options, 5), options)
    assert hook is not None
    with pytest.raises(MethodError, match="init_text: has 3 tokens, and num_virtual_tokens is 5"):
        hook.prepare(_tokenizer, 12)


def test_what_is_stated_beside_a_type_is_in_the_id_and_fits_it() -> None:
    lora = PeftOptions(peft={"peft_type": "LORA"})
    assert lora.identity() == {"peft_type": "LORA"}
    assert lora.model_dump() == {"peft": {"peft_type": "LORA"}}
    frozen = PeftOptions(peft={"peft_type": "LORA"}, lora_fa=True)
    assert frozen.identity() == {"peft_type": "LORA", "lora_fa": True}
    assert frozen.resized("r", 3).lora_fa
    with pytest.raises(ValidationError, match="lora_fa: is of peft_type LORA, not OFT"):
        PeftOptions(peft={"peft_type": "OFT"}, lora_fa=True)
    with pytest.raises(ValidationError, match="init_text: is of peft_type PREFIX_TUNING and CART"):
        PeftOptions(peft={"peft_type": "LORA"}, init_text="Think.")
