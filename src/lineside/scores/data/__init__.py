"""Pages as they come: files, scale, quality."""
