"""The package's version: that of the program, which a test compares."""

__version__ = "0.1.0"
