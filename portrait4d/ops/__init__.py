"""L1: tensor primitives; each file is a contract, a PyTorch reference and its dispatch."""
