"""What the embedded world is made of: names, facts, wordings, instructions, benchmark items."""
