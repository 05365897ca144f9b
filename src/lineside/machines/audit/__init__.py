"""Checks of histories before training: gaps, duplicates, labelled faults, drift."""
