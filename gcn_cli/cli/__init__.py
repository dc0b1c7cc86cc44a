"""The command line: options to the Python API, results to stdout and files."""
