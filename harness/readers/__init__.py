"""Reading what comes from outside: one reader per kind of file, bounded, one line a fault."""
