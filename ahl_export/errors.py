"""The errors of an export: one tree; each message says what was wrong, where, and the way out."""


class ExportError(Exception):
    """An artefact that cannot be built, proven equal, or written."""
