"""The default method: a one-class model of good images and a head for labelled defects."""
