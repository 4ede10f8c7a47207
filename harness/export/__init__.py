"""Exports trained cells as PEFT folders with model cards, and imports LLaMA-Adapter checkpoints."""
