"""The chapters of `scores` in a report."""
