"""What surrounds every route, outermost first. Plain ASGI, so that disconnects stay visible.

AccessLog           request id, access log, request metrics, the last resort for exceptions
Tracing             a span for each request, where traces are taken
PlainHead           400 for a head that two readers may read differently
Authentication      an API key, on everything but health
LoadShedding        429 where the engine's queue is nearly full
CancelOnDisconnect  no new work while draining; a handler ends when its client leaves
BodyLimit           413 beyond the limit, 429 beyond that of all bodies, 408 where one does not come
"""
