"""A run on one page, to be opened from disk: pictures of a model's inside, curves, measures."""
