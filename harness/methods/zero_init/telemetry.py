"""Telemetry of the prompt methods: gates, gradient norms, and the prompt's share of attention.

It reads and never writes: no module, no gradient, no random number is touched, so that a run
with it gives the same bits as one without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from harness.methods.zero_init.probe import attention_shares, prompts_of

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import torch
    from torch import nn

    from harness.methods.zero_init.attention import PromptAttention

GATES_FILE = "gates.parquet"
"""Gates over the run: step, layer, head, strength (signed; tanh(g), or g for `identity`)."""
SHARES_FILE = "attention_share.parquet"
"""The frames of `probe.attention_shares` before and after training (column `when`)."""
SHARES = ("mass", "norm")
"""The two measures of a prompt's share in SHARES_FILE: columns `mass_share` and `norm_share`."""


class PromptTelemetry:
    """The `TelemetryCallback` of a model that carries prompts.

    Metrics, named as in MLflow: those of `gate_statistics`; `gate/gradient_norm` over all gates,
    `prompt/gradient_norm` over free prompts or their generator, and `prompt/image_gradient_norm`
    over the projection of pictures where there is one, all of the gradients as the optimizer takes
    them in the step that is read, clipped where the recipe clips; and of the whole run
    `probe/prompt_mass_share/before`, `.../after` and `probe/prompt_norm_share/...`, means over
    layers and heads.
    """

    def __init__(self, model: nn.Module) -> None:
        from harness.models.pictures import is_of_projection

        self.model = model
        self._prompts = [prompt for prompt in prompts_of(model) if prompt.gate is not None]
        self._gates = [prompt.gate for prompt in self._prompts if prompt.gate is not None]
        gates = {id(gate) for gate in self._gates}
        named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        self._projection = [p for name, p in named if is_of_projection(name)]
        self._others = [p for name, p in named if id(p) not in gates and not is_of_projection(name)]
        self._norms: dict[str, torch.Tensor] = {}
        self._last: dict[str, float] = {}
        self._readings: list[tuple[int, np.ndarray]] = []
        self._shares: dict[str, pd.DataFrame] = {}

    def start(self, token_ids: Sequence[Sequence[int]]) -> None:
        """Measures the prompts' share of attention; see `probe.attention_shares`."""
        self._shares["before"] = attention_shares(self.model, token_ids)

    def finish(self, token_ids: Sequence[Sequence[int]]) -> None:
        """Measures the prompts' share of attention; see `probe.attention_shares`."""
        self._shares["after"] = attention_shares(self.model, token_ids)

    def observe_gradients(self) -> None:
        """Computes the norms of the gradients, which the step clears."""
        self._norms = {"prompt/gradient_norm": gradient_norm(self._others)}
        if self._gates:
            self._norms["gate/gradient_norm"] = gradient_norm(self._gates)
        if self._projection:
            self._norms["prompt/image_gradient_norm"] = gradient_norm(self._projection)

    def collect(self, step: int) -> dict[str, float]:
        """The gates after a step and the norms of its gradients: one host-device sync."""
        import torch

        parts = [*_strengths(self._prompts), *self._norms.values()]
        with torch.no_grad():
            values = torch.cat([part.detach().flatten() for part in parts]).cpu().numpy()
        num_norms = len(self._norms)
        gates, norms = values[: values.size - num_norms], values[values.size - num_norms :]
        self._last = dict(zip(self._norms, map(float, norms), strict=True))
        self._norms = {}
        if self._prompts:
            strengths = gates.reshape(len(self._prompts), -1)
            self._readings.append((step, strengths))
            self._last = _summary(self._prompts, strengths) | self._last
        return dict(self._last)

    def statistics(self) -> dict[str, float]:
        """The metrics of the last reading and the prompts' mean shares."""
        found = dict(self._last)
        for when, frame in self._shares.items():
            for name in SHARES:
                found[f"probe/prompt_{name}_share/{when}"] = float(frame[f"{name}_share"].mean())
        return found

    def frames(self) -> dict[str, pd.DataFrame]:
        """The gates over the training run (where there are any), and the shares (where probed)."""
        import pandas as pd

        frames = {GATES_FILE: self._gate_frame()} if self._readings else {}
        if self._shares:
            shares = pd.concat(self._shares, names=["when"])
            frames[SHARES_FILE] = shares.reset_index("when").reset_index(drop=True)
        return frames

    def state(self) -> dict[str, np.ndarray]:
        """The readings, the shares column by column, and the metrics last read."""
        import numpy as np

        found = {f"last/{name}": np.array(value) for name, value in self._last.items()}
        if self._readings:
            found["steps"] = np.array([step for step, _ in self._readings])
            found["strengths"] = np.stack([strengths for _, strengths in self._readings])
        for when, frame in self._shares.items():
            for index, column in enumerate(frame.columns):
                found[f"shares/{when}/{index}/{column}"] = np.array(frame[column])
        return found

    def load_state(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Puts back what `state` gave."""
        import pandas as pd

        columns: dict[str, dict[str, np.ndarray]] = {}
        self._last = {}
        for name, array in sorted(arrays.items()):
            kind, _, rest = name.partition("/")
            if kind == "last":
                self._last[rest] = float(array)
            elif kind == "shares":
                when, _, column = rest.split("/", 2)
                columns.setdefault(when, {})[column] = array
        self._shares = {when: pd.DataFrame(found) for when, found in columns.items()}
        steps = arrays["steps"].tolist() if "steps" in arrays else []
        self._readings = list(zip(steps, arrays["strengths"], strict=True)) if steps else []

    def _gate_frame(self) -> pd.DataFrame:
        import numpy as np
        import pandas as pd

        strengths = np.stack([reading for _, reading in self._readings])  # (readings, layers, H)
        steps = [step for step, _ in self._readings]
        layers = [prompt.layer_index for prompt in self._prompts]
        rows = pd.MultiIndex.from_product(
            [steps, layers, range(strengths.shape[2])], names=["step", "layer", "head"]
        )
        frame = pd.DataFrame({"strength": strengths.ravel()}, index=rows).reset_index()
        return frame.astype(
            {"step": "int32", "layer": "int16", "head": "int16", "strength": "float32"}
        )


def gradient_norm(parameters: Sequence[nn.Parameter]) -> torch.Tensor:
    """Euclidean norm of the parameters' gradients together; no host-device sync."""
    import torch

    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return torch.nn.utils.get_total_norm(gradients)


def gate_statistics(model: nn.Module) -> dict[str, float]:
    """Mean and largest |tanh(g)| over all gates, and by layer (over its heads).

    The keys are `gate/mean_abs`, `gate/max_abs`, `gate/layer_02/mean_abs` and so on, with the
    layer's index in the model. With `gate_activation: identity` it is |g|. One copy from the
    device; nothing for a model without gates.
    """
    import torch

    prompts = [prompt for prompt in prompts_of(model) if prompt.gate is not None]
    if not prompts:
        return {}
    with torch.no_grad():
        return _summary(prompts, torch.stack(_strengths(prompts)).cpu().numpy())


def _strengths(prompts: Sequence[PromptAttention]) -> list[torch.Tensor]:
    """Gate strengths, (H,) for each layer."""
    import torch

    with torch.no_grad():
        return [prompt.gate_strength().flatten() for prompt in prompts]


def _summary(prompts: Sequence[PromptAttention], strengths: np.ndarray) -> dict[str, float]:
    """Statistics of signed strengths (layers, H)."""
    rows = abs(strengths.astype("float64"))
    found = {"gate/mean_abs": float(rows.mean()), "gate/max_abs": float(rows.max())}
    for prompt, row in zip(prompts, rows, strict=True):
        layer = f"gate/layer_{prompt.layer_index:02d}"
        found[f"{layer}/mean_abs"] = float(row.mean())
        found[f"{layer}/max_abs"] = float(row.max())
    return found
