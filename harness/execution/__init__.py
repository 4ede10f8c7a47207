"""Runs a grid's cells on the devices of a machine: executors, scheduling, worker processes."""
