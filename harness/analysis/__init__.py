"""What the numbers of a grid mean: estimates, comparisons, published values, alarms."""
