"""The client whose calls block. Made from ``_async`` by ``unasync.py``."""
