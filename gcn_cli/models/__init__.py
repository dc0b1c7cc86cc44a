"""Energy models and their passes: tensors in, tensors out. No files, no console, no settings."""
