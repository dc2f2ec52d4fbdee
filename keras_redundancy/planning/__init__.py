"""Which units go: similarities, budgets, and the plan to print."""
