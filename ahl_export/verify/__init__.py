"""The gate that checks whether an artefact equals the model, and the search for where a difference begins."""
