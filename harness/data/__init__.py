"""Training data: reading, template, tokens, fractions; and the pinned versions of data sets."""
