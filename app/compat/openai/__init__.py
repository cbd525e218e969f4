"""OpenAI's completions, and the tokenizer routes that their clients ask for as well."""
