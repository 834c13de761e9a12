"""The operating system: processes, signals, rights, files without a name."""
