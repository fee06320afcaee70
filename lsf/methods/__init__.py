"""The tuning methods: what each does to a model, what it saves, and whether it can be merged."""
