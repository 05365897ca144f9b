"""Pictures that show what a detector saw."""
