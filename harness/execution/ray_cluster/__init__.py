"""The executor of a Ray cluster: one task per cell, events by a streaming generator."""

from harness.execution.ray_cluster.executor import RayExecutor

__all__ = ["RayExecutor"]
