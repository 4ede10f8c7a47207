"""Adapters for others, and the checkpoints that LLaMA-Adapter's authors published."""
