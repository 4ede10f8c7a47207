"""Running a grid's cells: which are to do, who runs them, and what came of it."""
