"""One message for one owner, from its octets to what may be stored."""
