"""The schema of each engine: the same numbered steps for both.

A step that an engine does not need has a file there, too, that says why it does nothing.
"""
