"""An owner's keys: which count, what is wrong with them, how they are set up and taken away."""
