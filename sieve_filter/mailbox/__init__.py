"""Mail that is stored already, over IMAP: what can still be read, and its replacement."""
