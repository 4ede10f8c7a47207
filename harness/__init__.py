"""zbench: fine-tune and evaluate a grid of experiments, and print a paper's tables.

After `import harness`, PEFT loads the adapter folders of the prompt methods as its own.
"""

from __future__ import annotations

from harness.peft_hook import register_when_peft_is_there

__version__ = "0.1.0"

register_when_peft_is_there()
