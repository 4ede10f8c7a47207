"""What some of PEFT's types do between two optimizer steps, or once before the first.

AdaLoRA moves its budget of ranks (Zhang et al., 2023, arXiv 2303.10512), LoRA-FA projects
gradients (Zhang et al., 2023, arXiv 2308.03303), and a prefix may begin as a text's keys and
values.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from harness.errors import MethodError
from harness.methods.method import TrainingHook
from harness.models.adapter_folder import ADAPTER

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor

logger = logging.getLogger(__name__)


class AdaLora(TrainingHook):
    """AdaLoRA's loss term and its masks of singular values, by PEFT's own allocator.

    As in PEFT's `update_and_allocate`: up to `total_step - tfinal` steps importance is followed and
    the least important singular values are set to 0; from then on the last masks stay. Matrices
    keep the size of `init_r`, so that what is stored is what was trained.
    """

    parallel = False  # importance is of whole gradients, and the loss term is of one process

    def __init__(self, model: PeftModel) -> None:
        self._model: Any = model.base_model.model
        self._config: Any = model.peft_config[ADAPTER]
        self._allocator: Any = model.base_model.rankallocator
        self._steps = 0
        self._kept: dict[str, Tensor] = {}

    def prepare(self, tokenizer: Any, num_steps: int) -> None:
        last = self._config.total_step - self._config.tfinal
        if num_steps < last:
            logger.warning(
                "AdaLoRA comes down to target_r %d at step total_step - tfinal = %d, and the "
                "training has %d: its ranks stay higher; set total_step to %d",
                *(self._config.target_r, last, num_steps, num_steps),
            )

    def penalty(self) -> Tensor:
        """`orth_reg_weight` times the mean over A and B of the norm of PPᵀ - I (equation 4)."""
        import torch

        norms = []
        for name, value in self._model.named_parameters():
            if ".lora_A." in name or ".lora_B." in name:
                product = value @ value.T if ".lora_A." in name else value.T @ value
                identity = torch.eye(len(product), device=product.device)
                norms.append(torch.linalg.matrix_norm(product - identity))
        loss: Tensor = self._config.orth_reg_weight * torch.stack(norms).mean()
        return loss

    def after_step(self) -> None:
        """Follows the importance, and masks."""
        self._steps += 1
        last = self._config.total_step - self._config.tfinal
        if self._steps < last:
            self._allocator.update_ipt(self._model)
        budget, due = self._allocator.budget_schedule(self._steps)
        if self._steps <= last and (due or self._steps == last):
            if budget < self._allocator.init_bgt and self._allocator.ipt:
                self._masked(self._allocator.mask_to_budget(self._model, budget))
        elif self._steps > last and self._kept:
            self._allocator.mask_using_rank_pattern(self._model, self._kept)

    def _masked(self, pattern: Mapping[str, list[bool]]) -> None:
        import torch

        self._kept = {name: torch.tensor(mask) for name, mask in pattern.items()}

    def state(self) -> dict[str, Tensor]:
        import torch

        found = {"steps": torch.tensor(self._steps)}
        found |= {f"kept/{name}": mask.clone() for name, mask in self._kept.items()}
        for kind in ("ipt", "exp_avg_ipt", "exp_avg_unc"):
            values = getattr(self._allocator, kind)
            found |= {f"{kind}/{n}": v.detach().cpu().clone() for n, v in values.items()}
        return found

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        self._steps = int(tensors["steps"])
        devices = {name: value.device for name, value in self._model.named_parameters()}
        self._kept = {}
        for key, value in tensors.items():
            kind, _, name = key.partition("/")
            if kind == "kept":
                self._kept[name] = value.clone()
            elif name:
                getattr(self._allocator, kind)[name] = value.to(devices[name], copy=True)


class LoraFa(TrainingHook):
    """LoRA-FA: A is frozen, and B's gradient g becomes (r / alpha)² g (AAᵀ)⁻¹.

    That gradient of B makes the product's change the nearest to full fine-tuning's that a frozen A
    allows. In fp32, where PEFT's optimizer multiplies in bf16; the rest is the cell's optimizer.
    """

    def __init__(self, model: PeftModel) -> None:
        self._layers: list[Any] = [
            module for module in model.modules() if ADAPTER in getattr(module, "lora_A", {})
        ]

    def change_gradients(self) -> None:
        import torch

        with torch.no_grad():
            for layer in self._layers:
                a, b = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
                if b.grad is None:
                    continue
                gram = a @ a.T + 1e-8 * torch.eye(len(a), device=a.device)
                b.grad = b.grad @ torch.linalg.pinv(gram) / layer.scaling[ADAPTER] ** 2


def freeze_a(model: PeftModel) -> None:
    """Freezes LoRA's A matrices, which keep what the seed drew."""
    for name, parameter in model.named_parameters():
        if ".lora_A." in name:
            parameter.requires_grad_(False)


class TextStart(TrainingHook):
    """Virtual keys and values that begin as those of a text's first tokens in the base model."""

    def __init__(self, model: PeftModel, text: str) -> None:
        self._model, self._text = model, text

    def prepare(self, tokenizer: Any, num_steps: int) -> None:
        import torch

        model: Any = self._model
        encoder, count = (
            model.prompt_encoder[ADAPTER],
            model.peft_config[ADAPTER].num_virtual_tokens,
        )
        ids = torch.tensor([tokenizer(self._text)["input_ids"]], device=model.device)
        if ids.shape[1] < count:
            raise MethodError(
                f"init_text: has {ids.shape[1]} tokens, and num_virtual_tokens is {count}; give a "
                "longer text or fewer virtual tokens"
            )
        with model.disable_adapter():
            cache = model(input_ids=ids, use_cache=True).past_key_values
        layers = [(layer.keys[0], layer.values[0]) for layer in cache.layers]
        # (heads, tokens, size) of each; PEFT's order is tokens, layers, keys before values, heads.
        rows = [part[:, :count].transpose(0, 1).flatten(1) for pair in layers for part in pair]
        encoder.load_prompt_embeddings(torch.cat(rows, dim=1).float())
