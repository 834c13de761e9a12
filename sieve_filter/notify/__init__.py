"""Words to owners, and how they reach them."""
