"""Every kind of key, and every program that reads mail with it: `make interop` writes docs/developer/interop.md."""
