"""What produces deocc's model bundles: data, training and evaluation. Importing it does no work."""
