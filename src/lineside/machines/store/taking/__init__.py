"""SQL of the journal: what one snapshot writes."""
