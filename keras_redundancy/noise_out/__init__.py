"""Units that predict noise become alike, and can be merged."""
