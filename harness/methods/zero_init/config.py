"""The prompt methods' adapter_config.json, as PEFT reads and writes it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from peft import PeftConfig, PeftType
from pydantic import ValidationError

from harness.errors import MethodError
from harness.methods.zero_init.options import PROMPT_METHODS
from harness.models.adapter_settings import ZERO_INIT_PROMPT
from harness.spec import describe_faults


@dataclass
class PromptConfig(PeftConfig):
    """The adapter_config.json of zero-initialised attention (not PEFT's prompt tuning).

    Raises:
        MethodError: an unknown method, or options that it does not have.
    """

    method: str = "zero-init-linear"
    """`random-init`, `zero-init-linear` or `zero-init-nonlinear`."""
    options: dict[str, Any] = field(default_factory=dict)
    """The method's options, as in a grid."""
    seed: int = 0
    """Seed of the initial values."""
    base_shape: dict[str, Any] | None = None
    """Sizes of the model that the adapter fits."""
    image_encoder: dict[str, Any] | None = None
    """Identity of the encoder whose features it was trained on (`ImageEncoder.identity`), beside
    the `image_encoder` of the options, which says where that is; None without one."""
    target_modules: Any = None
    """Not used: `options.num_layers` says which layers carry a prompt."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = getattr(PeftType, ZERO_INIT_PROMPT)
        kind = PROMPT_METHODS.get(str(self.method))
        if kind is None:
            raise MethodError(
                f"adapter_config.json: method: no prompt method {self.method!r}; known: "
                f"{', '.join(PROMPT_METHODS)}"
            )
        try:
            self.parsed = kind.model_validate(self.options)
        except ValidationError as error:
            fault = describe_faults(error, "adapter_config.json: options", kind)[0]
            raise MethodError(fault) from error

    def to_dict(self) -> dict[str, Any]:
        """The fields as adapter_config.json holds them, defaults of the options included."""
        found = asdict(self) | {"options": self.parsed.model_dump(mode="json")}
        if self.image_encoder is None:  # as adapters without pictures always were
            del found["image_encoder"]
        return found
