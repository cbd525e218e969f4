"""Load on a server from outside: arrivals that do not wait for answers, and what became of them."""
