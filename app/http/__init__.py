"""HTTP as such: connections, bodies, answers, the life of the process."""
