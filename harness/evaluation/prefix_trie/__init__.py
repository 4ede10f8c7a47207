"""Log-likelihoods of requests whose shared prefixes are computed once.

`trie` cuts the trie of the requests' tokens into segments, `batches` packs segments into the rows
of a forward pass, `forward` runs the model on them, `scoring` adds up what their logits say of each
request, and `checks` finds out which models that suits.
"""
