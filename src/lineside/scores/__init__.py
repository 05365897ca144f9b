"""What music is on this page? Music scanning: page images to symbols."""
