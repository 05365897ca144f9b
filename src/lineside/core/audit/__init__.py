"""Generic audit checks: counts, copies, leaks, outliers, shortcuts, drift, label noise."""
