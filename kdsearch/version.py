"""The version of kdsearch."""

__version__ = "0.1.0"
