"""The embedded world: invented facts, their benchmarks, and a tiny LLaMA that has read about them.

Everything is made from one seed; nothing is downloaded.
"""

from __future__ import annotations
