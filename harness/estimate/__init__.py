"""What a grid costs before anyone pays: tokens, operations, hours, money, memory, disk.

`plan` has the rows of `zbench plan`, `gpus` the table of hardware, `needs` what a grid reads and
must fetch; `tokens` counts what goes through the model, `compute` makes operations and bytes of it
from shapes, `costs` the hours and the money; `probe` measures this machine. Imports nothing heavy
at its top.
"""
