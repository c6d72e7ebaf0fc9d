"""Tests of the package: ``python -m unittest`` in ``src/python``.

Those that need a coordinator start the program that ``PALIMPSEST_BINARY`` names, by default the
checkout's, and are skipped without it.
"""
