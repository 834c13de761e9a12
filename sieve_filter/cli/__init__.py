"""The command cryptomail, for people."""
