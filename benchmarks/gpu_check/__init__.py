"""`make gpu-check`: what a card shows and a CPU cannot, in one command of under 8 minutes.

`__main__` is the command: it starts a worker, prints its rows and writes the JSON. `worker` runs
the cases of `cases` one after the other in a process that a broken card may take down: another
goes on behind it. A case yields rows (`rows`): what was found, what was expected and where that
comes from (`expected`). `bench` builds what all of them work on.
"""
