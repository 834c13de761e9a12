"""Mail that is stored already: what of it can still be read, and what becomes of it."""
