"""Slurm: cells as elements of job arrays, through `sbatch`, `squeue` and `scontrol` alone.

Each job runs its cell as `harness.execution.on_node` does and needs no parent: whoever follows it
reads the event file in the cell's folder. Slurm is the guard against a cell that is run twice: a
cell has one job, which the queue names.
"""
