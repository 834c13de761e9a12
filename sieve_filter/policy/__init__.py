"""What is wanted, and by whom: the configuration file, and the arguments of Sieve scripts."""
