"""S/MIME as bytes (RFC 5652, 8551). Pure."""
