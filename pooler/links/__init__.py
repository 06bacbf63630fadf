"""Waiting on one connection: log a client in, open and log in to a server."""
