"""Wire shapes of other APIs, answered by the same service: translation and no scoring.

Each family is one file of routes and one of wire types, and knows none of the others.
"""
