"""Whether it is on, and will stay on: Dovecot's configuration, files, rights and programs, judged; and a probe."""
