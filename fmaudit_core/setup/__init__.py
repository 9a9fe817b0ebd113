"""First steps: propose a config, find embeddings, write `audit.yaml`, examine what an audit needs."""
