"""Learning what is normal: first, anew with a person's consent, and the ledger of it."""
