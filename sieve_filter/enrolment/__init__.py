"""An owner's wish about keys, read from a message and done."""
