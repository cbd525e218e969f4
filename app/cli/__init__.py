"""What the command line does beside serving, a file for each command."""
