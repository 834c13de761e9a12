"""OpenPGP as bytes: packets, armor, certificates, PGP/MIME (RFC 9580, 3156). Pure."""
