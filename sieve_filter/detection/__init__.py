"""Is it encrypted already? Is there a secret key in it (`secrets`)? Pure."""
