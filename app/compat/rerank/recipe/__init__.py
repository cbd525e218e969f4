"""How a reranker's own folder says that a document is ranked, as sentence-transformers reads it."""
