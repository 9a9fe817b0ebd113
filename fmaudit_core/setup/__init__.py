"""First steps: propose a config, find embeddings, write `audit.yaml`, check the requirements of an audit."""
