"""Runs a grid's cells where an executor places them: on this machine, or on a cluster's."""
