"""Sensor faults, features, spectra, orders and bearing diagnosis of one snapshot."""
