"""zbench: fine-tune and evaluate a grid of experiments, and print a paper's tables.

After `import harness`, PEFT loads the adapter folders of the prompt methods as its own; those that
take pictures are given them by `with harness.pictures(model, images): model.generate(...)`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.peft_hook import register_when_peft_is_there

if TYPE_CHECKING:
    from harness.methods.zero_init.pictures import image_encoder as image_encoder
    from harness.methods.zero_init.pictures import pictures as pictures

__version__ = "0.1.0"

register_when_peft_is_there()


def __getattr__(name: str) -> Any:
    """`pictures` and `image_encoder`, imported when they are first asked for."""
    if name not in ("pictures", "image_encoder"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import harness.methods.zero_init.pictures as found

    return getattr(found, name)
