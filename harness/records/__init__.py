"""What runs leave behind: results, events, the environment, and how files are written."""
