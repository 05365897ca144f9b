"""The run folder, its files and tables, models on disk, the feature cache, progress."""
