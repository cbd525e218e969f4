"""Traces for OpenTelemetry: the spans of requests, and those of the forwards that held them.

A forward holds parts of many requests, so it can be a child of none. As OpenTelemetry has it for
batches, it is the root of a trace of its own, ``batch``, and linked with what it held, both ways::

    POST /v1/score ─┬─ tokenize                    one trace a request
                    ├─ queue
                    ├─ forward ───┐
                    └─ render     │ links, both ways
                                  │
    batch ────────────────────────┘                one trace a forward

No span holds anything that a client has sent, but for the ids of its own trace. While a request
runs only numbers are noted; its spans are made when it has ended, and leave on a thread of their
own. What that thread cannot send in time is dropped.

The only package that imports OpenTelemetry's SDK; nothing imports it where no traces are taken.
"""
