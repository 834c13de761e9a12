"""Is it encrypted already? Pure."""
