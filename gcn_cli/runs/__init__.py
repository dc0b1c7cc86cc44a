"""The life of a training in a folder: its files, session, loop and grades."""
