"""Documents for a query, in the shapes of Cohere, Jina, vLLM and text-embeddings-inference."""
