"""A queue or a broker of the operator's own, by the dotted path of what makes it."""
