"""Checks of a data set before training: generic ones, outliers, shortcuts, drift, label noise."""
