"""Deliveries to real Dovecots of both versions, set up from the files that are installed."""
