"""What each command does once its arguments are parsed, and what it prints."""
