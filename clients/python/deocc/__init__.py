"""deocc: the client of the deocclusion service."""
