"""A grid: its file, its cells, and how far each of them is."""
