"""POST /v1/score and /v1/next_token: from the schema to queries, and from results to answers."""
