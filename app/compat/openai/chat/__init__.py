"""OpenAI's chat completions, and what vLLM adds to them."""
