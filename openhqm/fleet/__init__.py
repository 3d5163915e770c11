"""Several processes on one port: the parent that supervises them, and each process's connection to the parent."""
