"""Text: documents by stable ids, who reads them, tokens, rows for training, and requests over documents."""
