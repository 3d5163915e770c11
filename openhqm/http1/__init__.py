"""HTTP/1.1 over llhttp: the server's channel, requests relayed to another server, and the clients."""
