"""cryptomail: encrypts each message to its owner's OpenPGP key while Dovecot delivers it."""

__version__ = "0.1.0"
