"""Feature memory with nearest neighbours (PatchCore, Roth et al. 2022)."""
