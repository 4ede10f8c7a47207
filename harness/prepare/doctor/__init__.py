"""What `zbench doctor` looks at; a check is a function here and a line in `checks.CHECKS`."""
