"""Makes PEFT know the prompt methods as soon as it is imported, without importing it here.

PEFT takes seconds to import and has no entry points for methods of other packages. So that `import
harness` stays quick and comes before or after `import peft` alike, a finder waits for that import.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from types import ModuleType


def register_when_peft_is_there() -> None:
    """Registers the prompt methods with PEFT: now if it is imported, else when it is."""
    if "peft" in sys.modules:
        _register()
    elif not any(isinstance(finder, _PeftFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _PeftFinder())


def _register() -> None:
    # It registers itself. Where it is just being imported, and imports PEFT, this does nothing.
    import harness.methods.zero_init.tuner  # noqa: F401


class _PeftFinder(MetaPathFinder):
    """Finds nothing but `peft`, and puts `_register` behind its import."""

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
        # To be found is not to be imported: transformers looks whether PEFT is there.
        if spec is not None and spec.loader is not None:
            spec.loader = _RegisteringLoader(spec.loader)
        return spec


class _RegisteringLoader(Loader):
    """PEFT's own loader, with one thing done after it."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        _register()

    def __getattr__(self, name: str) -> object:
        # importlib.resources and inspect ask a module's loader for more than loading.
        return getattr(self._loader, name)
