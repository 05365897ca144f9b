"""The ground floor shared by all applications; it knows no image, audio, music, face or game."""
