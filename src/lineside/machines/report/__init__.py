"""The chapters of a `machines` report."""
