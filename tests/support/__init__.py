"""What several test modules need: parts to make messages and keys of, and what runs beside the program."""
