"""The line: frames from sources, through one engine, into the store and from there to sinks."""
