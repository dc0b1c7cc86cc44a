"""The network as published: filters and gates up, the same filters as basis functions down."""
