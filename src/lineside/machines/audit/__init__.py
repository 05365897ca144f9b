"""What spoils a history: gaps, copies, faults at the beginning, drift while it is learned."""
