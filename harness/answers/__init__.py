"""Answers of a grid's cells to a set of instructions: generated, kept, shown side by side."""
