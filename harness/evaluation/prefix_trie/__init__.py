"""Log-likelihoods over a radix tree of the requests: prefix (KV) caching and tree attention.

`trie` cuts the radix tree of the requests' tokens into segments, `batches` packs segments into the
rows of a forward pass, `forward` runs the model on them, `scoring` accumulates each request's
log-likelihood, and `checks` finds out which models support that.
"""
