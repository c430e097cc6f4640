"""Hosts for the engines: Ray Serve and a single process."""
