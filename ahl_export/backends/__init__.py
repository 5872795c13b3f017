"""One file for each engine that a bundle can carry an artefact for."""
