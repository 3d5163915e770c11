"""One Redis that a queue and a result store rest in together, shared by as many processes as there are."""
