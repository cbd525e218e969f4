"""POST /v1/decode: from the schema to searches, and from what they found to answers."""
