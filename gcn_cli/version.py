"""The version, apart from the package so that all its rooms may read it."""

VERSION = "0.2.0"
