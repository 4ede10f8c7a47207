"""The paper's own protocol: free generation, scored by string matching (docs/paper-protocol.md).

`documents` makes prompts of items and `matching` scores responses; `tasks` holds lm-eval's
definitions, which plain `lm_eval` runs too. `generator` generates: `prefill` computes prompts,
`pool` what follows them, `sampling` chooses tokens; `cache_check` finds the models that no cache
fits. `model` is lm-eval's model class over it, and `run` turns its answers into records.
"""

from __future__ import annotations
