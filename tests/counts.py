"""What the fault tests count for their closing line (they run in one process)."""
tried = 0          # inputs given to a parser by the fuzz tests
