"""What Dovecot or systemd starts."""
