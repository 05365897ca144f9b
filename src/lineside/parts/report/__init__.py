"""The chapters of a `parts` report."""
