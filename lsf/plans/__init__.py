"""From scores to plans: policies, budgets, what a plan costs, and the plan that is recommended."""
