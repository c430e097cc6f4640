"""Evaluation: data sets in, requests through the public client, figures with their definitions out."""
