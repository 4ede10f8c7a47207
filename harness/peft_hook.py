"""Makes PEFT know the prompt methods as soon as it is imported, without importing it here.

PEFT takes seconds to import and has no entry points for methods of other packages. So that `import
harness` stays quick and comes before or after `import peft` alike, a finder waits for that import.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any


def register_when_peft_is_there() -> None:
    """Registers the prompt methods with PEFT: now if it is imported, else when it is."""
    if "peft" in sys.modules:
        _register()
    elif not any(isinstance(finder, _PeftFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _PeftFinder())


def _register() -> None:
    # The module registers itself. While it is being imported, and imports PEFT, this does nothing.
    import harness.methods.zero_init.tuner  # noqa: F401


class _PeftFinder:
    """Finds `peft` alone, as the other finders of sys.meta_path do; calls `_register` after it.

    It has no base class: importing `importlib.abc` takes 10 ms, at every start.
    """

    def __init__(self) -> None:
        self._searching = False

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != "peft" or self._searching:
            return None
        self._searching = True  # the other finders are asked
        try:
            spec = importlib.util.find_spec("peft")
        finally:
            self._searching = False
        if spec is not None and spec.loader is not None:
            self._register_after(spec.loader)
        return spec

    def _register_after(self, loader: Any) -> None:
        # To be found is not to be imported: transformers looks whether PEFT is there.
        execute = loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            execute(module)
            _register()

        loader.exec_module = execute_and_register
