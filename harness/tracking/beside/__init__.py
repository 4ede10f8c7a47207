"""Trackers beside MLflow: wandb, trackio, TensorBoard.

Each gets the run's events in a process of its own, through a queue that is never waited for: one
that raises, hangs or is slow loses its own points, and nothing else. A new one is a file here, an
entry in `registry.TRACKERS`, a name in `harness.grid.tracking_uri.BesideName` and an extra.
"""
