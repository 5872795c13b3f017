"""What an export refuses to do: one tree, each message with what was wrong, where, and the way out."""


class ExportError(Exception):
    """An artefact that cannot be made, cannot be proven equal, or cannot be written."""
