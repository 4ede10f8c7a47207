"""zbench: fine-tune and evaluate a grid of experiments, and print a paper's tables."""

__version__ = "0.1.0"
