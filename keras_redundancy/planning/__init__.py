"""Which units go: selection methods, how much goes, and the plan to print.

`plans.plan` reads like the way of a call: `request` turns short names and
options into objects (`methods`, `absorbing`), `levels` says how much of each
space goes or why it stays, `choosing` lets the method choose (from what
`criteria` compares units by, under the budgets of `budgets` and `latency`), and
`decisions` holds what came out, a `Plan`, which `by_hand` changes.
"""
