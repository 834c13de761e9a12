"""The only package that starts gpg, and knows its formats."""
