"""Other systems on the same machine, tokens and threads, each in an environment of its own."""
