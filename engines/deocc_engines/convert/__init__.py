"""From published files to bundles: the only place where pickles are read, and then as weights only."""
