"""Owners' Sieve scripts, and the server that keeps them (RFC 5228, 5804)."""
