"""Questions about one input, in the shape of OpenAI's decisions."""
