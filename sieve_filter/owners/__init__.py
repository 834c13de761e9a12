"""Whose mail it is, and where their homes are."""
