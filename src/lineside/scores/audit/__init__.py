"""What spoils a set of pages."""
