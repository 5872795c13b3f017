"""Is an artefact equal to the model? The gate, and where a difference begins."""
