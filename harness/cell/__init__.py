"""One cell's life, from the base model to its scores: see `run`."""
