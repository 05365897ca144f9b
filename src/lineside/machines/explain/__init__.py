"""Explanations of one snapshot: channels, bands, fault frequencies, nearest healthy snapshots."""
