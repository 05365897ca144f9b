"""What spoils a data set of pictures: unreadable files, duplicates, leaks, bad masks."""
