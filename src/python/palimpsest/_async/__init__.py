"""The client whose calls are awaited. ``_sync`` is made from it by ``unasync.py``."""
