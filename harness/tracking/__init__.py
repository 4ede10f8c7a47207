"""The trackers: MLflow, which only this folder imports, and in `beside/` those beside it.

Experiment = grid; parent run = the grid; child run = one cell. A tracking server that is down or
slow never stops a run: the cells' own files are the truth, and `sync` replays from them what is
missing. Everything is logged from one process, by explicit run id, so that a `MLFLOW_RUN_ID` in
the environment changes nothing and SQLite has one writer.
"""
