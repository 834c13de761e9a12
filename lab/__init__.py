"""The lab: a private Dovecot on loopback ports, made of the files that `make install` installs."""
