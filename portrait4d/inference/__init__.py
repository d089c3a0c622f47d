"""L7: trained networks put to use."""
