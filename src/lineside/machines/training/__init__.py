"""Fitting machines, relearning them with a person's consent, and the record of what was learned."""
