"""What a grid costs before anyone pays: tokens, operations, hours, money, memory, disk.

`gpus` is the table of hardware, `tokens` and `lengths` count what goes through the model, `flops`
and `memory` follow from the shapes, `costs` puts them together, `needs` tells what must be fetched
and stored, and `probe` measures this machine. Imports nothing heavy at its top.
"""

from __future__ import annotations
