"""HTTP/1.1 over llhttp: the server's channel, the pass-through, the client."""
