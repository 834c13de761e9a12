"""Messages as bytes: header section, MIME structure, header confidentiality (RFC 5322, 2045, 9788). Pure."""
