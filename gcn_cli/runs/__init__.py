"""The work of every command, without a command line: runs on disk, and what is done with them."""
