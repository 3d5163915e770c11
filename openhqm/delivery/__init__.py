"""How the reply to a request gets back to the caller: JSON documents, long polling and Server-Sent Events."""
