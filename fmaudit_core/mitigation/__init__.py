"""Does a mitigation help, whom, and at what price: strategies on frozen embeddings, each tested against the probe as it was."""
