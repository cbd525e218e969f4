"""Wire shapes of other APIs, answered by the same service: translation and no scoring.

Each family is a package: its routes, its wire types, and how a request becomes token paths. None
knows another, but for the pairs of ``scoring``, which are put to the model as ``rerank`` does it.
"""
