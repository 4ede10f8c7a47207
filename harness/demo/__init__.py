"""The embedded world: invented facts, their benchmarks, and a tiny LLaMA that has read about them.

Its files ship with the package; `scripts/` makes them, from one seed and without a download.
"""

from __future__ import annotations
