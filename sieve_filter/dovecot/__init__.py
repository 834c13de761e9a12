"""What is spoken with Dovecot: script protocol, master process, LMTP, doveadm. No policy."""
