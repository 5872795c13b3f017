"""One file for each engine that a bundle can have an artefact for."""
