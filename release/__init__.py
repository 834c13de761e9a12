"""Builds what a release consists of, in clean trees of Debian, and tries it out there. `make deb` runs this."""
