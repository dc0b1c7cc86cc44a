"""The Click application: options in, words and files out; no mathematics."""
