"""The methods: one file or folder each, behind the interface of `detector.py`."""
