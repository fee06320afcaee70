"""Reading a model: one streaming pass over examples that measures what every criterion needs."""
