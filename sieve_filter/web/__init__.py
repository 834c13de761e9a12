"""The owner's page: what owners can do over IMAP, with their own name and password."""
