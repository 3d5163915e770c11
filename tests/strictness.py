"""Requests that must not reach an application, and what each gets: one line for each way to be wrong.

Derived from RFC 9110 and RFC 9112; the sections are named where one rule decides. Every one of them ends the
connection, because what follows on it cannot be told from the request that was wrong.
"""

from __future__ import annotations

HOST = b"Host: x\r\n"
GET = b"GET / HTTP/1.1\r\n" + HOST
POST = b"POST / HTTP/1.1\r\n" + HOST

REFUSED: dict[str, tuple[int, bytes]] = {
    # RFC 9112, section 3.2: Host
    "no host": (400, b"GET / HTTP/1.1\r\n\r\n"),
    "two hosts": (400, GET + HOST + b"\r\n"),
    "two different hosts": (400, GET + b"Host: y\r\n\r\n"),
    "host with a path": (400, b"GET / HTTP/1.1\r\nHost: x/y\r\n\r\n"),
    "host with user information": (400, b"GET / HTTP/1.1\r\nHost: a@x\r\n\r\n"),
    "host with a space": (400, b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
    "host with a word for a port": (400, b"GET / HTTP/1.1\r\nHost: x:http\r\n\r\n"),
    "two hosts in a list": (400, b"GET / HTTP/1.1\r\nHost: x, y/\r\n\r\n"),
    # RFC 9112, section 6.3: how long a body is
    "both lengths": (400, POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "both lengths, the other way round": (
        400,
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    ),
    "two lengths": (400, POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
    "the same length twice": (400, POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc"),
    "a list of lengths": (400, POST + b"Content-Length: 3, 3\r\n\r\nabc"),
    "length with a sign": (400, POST + b"Content-Length: +3\r\n\r\nabc"),
    "negative length": (400, POST + b"Content-Length: -3\r\n\r\nabc"),
    "hexadecimal length": (400, POST + b"Content-Length: 0x3\r\n\r\nabc"),
    "length with an underscore": (400, POST + b"Content-Length: 1_0\r\n\r\n0123456789"),
    "empty length": (400, POST + b"Content-Length: \r\n\r\n"),
    "length of nineteen digits": (400, POST + b"Content-Length: 0000000000000000003\r\n\r\nabc"),
    "length beyond 64 bits": (400, POST + b"Content-Length: 99999999999999999999\r\n\r\n"),
    "identity": (400, POST + b"Transfer-Encoding: identity\r\n\r\n"),
    "gzip": (400, POST + b"Transfer-Encoding: gzip\r\n\r\n"),
    "gzip, chunked": (400, POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    "chunked, gzip": (400, POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n"),
    "chunked twice": (400, POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "chunked in a list": (400, POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
    "xchunked": (400, POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    "quoted chunked": (400, POST + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n'),
    "chunked with a vertical tab": (400, POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
    "chunked in HTTP/1.0": (400, b"POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    # RFC 9112, section 7.1: chunks
    "chunk size that is no number": (400, POST + b"Transfer-Encoding: chunked\r\n\r\nz\r\n\r\n"),
    "chunk size with 0x": (400, POST + b"Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n"),
    "chunk size with a sign": (400, POST + b"Transfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\n"),
    "chunk size with a space before it": (400, POST + b"Transfer-Encoding: chunked\r\n\r\n 3\r\nabc\r\n0\r\n\r\n"),
    "chunk size beyond 64 bits": (400, POST + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n"),
    "chunk longer than its size": (400, POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n"),
    "chunk with a bare line feed": (400, POST + b"Transfer-Encoding: chunked\r\n\r\n3\nabc\n0\n\n"),
    "chunk data ended by a bare line feed": (400, POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\n0\r\n\r\n"),
    # RFC 9112, section 5: lines
    "continued line": (400, GET + b"A: b\r\n c\r\n\r\n"),
    "continued line with a tab": (400, GET + b"A: b\r\n\tc\r\n\r\n"),
    "continued first line": (400, b"GET / HTTP/1.1\r\n A: b\r\nHost: x\r\n\r\n"),
    "space before the colon": (400, GET + b"A : b\r\n\r\n"),
    "tab before the colon": (400, GET + b"A\t: b\r\n\r\n"),
    "no colon": (400, GET + b"A\r\n\r\n"),
    "empty name": (400, GET + b": b\r\n\r\n"),
    "name with a space": (400, GET + b"A B: c\r\n\r\n"),
    "name with an underscore": (400, GET + b"A_B: c\r\n\r\n"),
    "name with a bracket": (400, GET + b"A(B: c\r\n\r\n"),
    "name with eight bits": (400, GET + b"\xc3\xa4: b\r\n\r\n"),
    "value with NUL": (400, GET + b"A: b\x00c\r\n\r\n"),
    "value with a bell": (400, GET + b"A: b\x07c\r\n\r\n"),
    "value with DEL": (400, GET + b"A: b\x7fc\r\n\r\n"),
    "value with a bare carriage return": (400, GET + b"A: b\rc\r\n\r\n"),
    "value with a bare line feed": (400, GET + b"A: b\nB: c\r\n\r\n"),
    "line feeds only": (400, b"GET / HTTP/1.1\nHost: x\n\n"),
    "head ended by line feeds": (400, GET + b"\n"),
    # RFC 9112, section 3: the request line
    "tab for a space": (501, b"GET\t/ HTTP/1.1\r\n" + HOST + b"\r\n"),
    "space at the front": (501, b" GET / HTTP/1.1\r\n" + HOST + b"\r\n"),
    "space at the end": (400, b"GET / HTTP/1.1 \r\n" + HOST + b"\r\n"),
    "no version": (505, b"GET /\r\n\r\n"),
    "another protocol": (400, b"GET / ICE/1.1\r\n" + HOST + b"\r\n"),
    "lower-case protocol": (400, b"GET / http/1.1\r\n" + HOST + b"\r\n"),
    "not HTTP at all": (501, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    "fragment": (400, b"GET /a#b HTTP/1.1\r\n" + HOST + b"\r\n"),
    "eight bits in the target": (400, b"GET /\xc3\xa4 HTTP/1.1\r\n" + HOST + b"\r\n"),
    "encoded NUL in the target": (400, b"GET /a%00b HTTP/1.1\r\n" + HOST + b"\r\n"),
    "backslash in the target": (400, b"GET /a\\b HTTP/1.1\r\n" + HOST + b"\r\n"),
    "broken escape in the target": (400, b"GET /a%zz HTTP/1.1\r\n" + HOST + b"\r\n"),
    "escapes in the path that are no UTF-8": (400, b"GET /%ff%fe HTTP/1.1\r\n" + HOST + b"\r\n"),
    "target without a slash": (400, b"GET a HTTP/1.1\r\n" + HOST + b"\r\n"),
    "asterisk for GET": (400, b"GET * HTTP/1.1\r\n" + HOST + b"\r\n"),
    "target of another scheme": (400, b"GET ftp://x/ HTTP/1.1\r\n" + HOST + b"\r\n"),
    "target with user information": (400, b"GET http://a@x/ HTTP/1.1\r\n" + HOST + b"\r\n"),
    # RFC 9110, section 9: methods; section 10.1.1: expectations
    "CONNECT": (405, b"CONNECT x:443 HTTP/1.1\r\n" + HOST + b"\r\n"),
    "TRACE": (405, b"TRACE / HTTP/1.1\r\n" + HOST + b"\r\n"),
    "unknown method": (501, b"BREW / HTTP/1.1\r\n" + HOST + b"\r\n"),
    "lower-case method": (501, b"get / HTTP/1.1\r\n" + HOST + b"\r\n"),
    "known method of no use here": (501, b"PROPFIND / HTTP/1.1\r\n" + HOST + b"\r\n"),
    "another expectation": (417, GET + b"Expect: miracles\r\n\r\n"),
    # Bounds
    "long target": (414, b"GET /" + b"a" * 8192 + b" HTTP/1.1\r\n" + HOST + b"\r\n"),
    "long line": (431, GET + b"A: " + b"b" * 16384 + b"\r\n\r\n"),
    "many lines": (431, GET + b"A: b\r\n" * 100 + b"\r\n"),
    "long head": (431, GET + (b"A: " + b"b" * 8000 + b"\r\n") * 9 + b"\r\n"),
    "announced long body": (413, POST + b"Content-Length: 100001\r\n\r\n"),
    "streamed long body": (
        413,
        POST + b"Transfer-Encoding: chunked\r\n\r\n" + (b"8000\r\n" + b"a" * 32768 + b"\r\n") * 4,
    ),
    "all framing": (400, POST + b"Transfer-Encoding: chunked\r\n\r\n" + (b"1;" + b"x" * 4000 + b"\r\na\r\n") * 40),
}
"""Name -> (status, the bytes)."""

SERVED: dict[str, bytes] = {
    "plain": GET + b"\r\n",
    "query": b"GET /a?b=c&d=%20 HTTP/1.1\r\n" + HOST + b"\r\n",
    "escapes": b"GET /%c3%a4?b=%ff HTTP/1.1\r\n" + HOST + b"\r\n",
    "body": POST + b"Content-Length: 3\r\n\r\nabc",
    "empty body": POST + b"Content-Length: 0\r\n\r\n",
    "chunks": POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
    "chunks with an extension": POST + b"Transfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\n\r\n",
    "chunks with a trailer": POST + b"Transfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n0\r\nA: b\r\n\r\n",
    "white space around a value": GET + b"A: \t b \t\r\n\r\n",
    "empty value": GET + b"A:\r\n\r\n",
    "eight bits in a value": GET + b"A: \xc3\xa4\r\n\r\n",
    "host with a port": b"GET / HTTP/1.1\r\nHost: x:8000\r\n\r\n",
    "host of numbers": b"GET / HTTP/1.1\r\nHost: [::1]:8000\r\n\r\n",
    "empty host": b"GET / HTTP/1.1\r\nHost:\r\n\r\n",
    "absolute form": b"GET http://x/a HTTP/1.1\r\n" + HOST + b"\r\n",
    "absolute form without a path": b"GET http://x HTTP/1.1\r\n" + HOST + b"\r\n",
    "HTTP/1.0": b"GET / HTTP/1.0\r\n\r\n",
    "empty line before": b"\r\n" + GET + b"\r\n",
    "as many lines as may be": GET + b"A: b\r\n" * 99 + b"\r\n",
    "upgrade that is not taken": GET + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    "upgrade that is not taken, with a body": POST
    + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\nabc",
    "upgrade that is not taken, with chunks": POST
    + b"Connection: Upgrade\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "on the short lane": b"POST /short HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\n\r\nhi",
}
"""Name -> the bytes of one request that is in order."""
