"""Modules that hold a part of each adapter, of which PEFT switches one on, or none."""

from __future__ import annotations

from collections.abc import Collection

from torch import nn


class Switched(nn.Module):
    """A module of several adapters; `layers.py` makes it a layer that PEFT knows."""

    # PEFT's state of a layer, here too because this file does not import PEFT.
    _active_adapter: str | list[str] = "default"
    _disable_adapters = False

    def adapters(self) -> Collection[str]:
        """Names of the adapters that have a part here."""
        raise NotImplementedError

    @property
    def active(self) -> str | None:
        """Name of the active adapter; None where adapters are disabled or it has no part here."""
        if self._disable_adapters:
            return None
        active = self._active_adapter
        name = active if isinstance(active, str) else (active[0] if active else "")
        return name if name in self.adapters() else None
