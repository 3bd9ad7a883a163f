cimport cython

from ..wire.arriving cimport Arriving
from ..wire.protocol cimport Protocol
from .inbox cimport Inbox
from .outbox cimport Outbox
from .turn cimport Turn

cdef object _OPEN
cdef object _CLOSING

cdef class Connection:
    cdef object __weakref__
    cdef readonly object name
    cdef readonly Protocol protocol
    cdef readonly object transport
    cdef readonly object housekeeper
    cdef readonly Turn turn
    cdef readonly object json
    cdef readonly object close_timeout
    cdef readonly object emitter
    cdef readonly Inbox inbox
    cdef readonly Outbox outbox
    cdef readonly object heartbeat
    cdef readonly object reading
    cdef readonly list taps
    cdef readonly Py_ssize_t bytes_received
    cdef readonly Py_ssize_t messages_received
    cdef readonly bint stalled
    cdef readonly bint closed_here
    cdef readonly bint ended
    cdef readonly list parked
    cdef readonly set closers
    cdef object _crash
    cdef bint _watched
    cdef bint _taking
    cdef bint _resuming
    cdef object _close_deadline

    cpdef bint may_pull(self) except -1
    cpdef note_edge(self, bint gone)
    @cython.locals(room=Py_ssize_t, data=bytes)
    cpdef pull(self)
    @cython.locals(room=Py_ssize_t)
    cdef Py_ssize_t _find_room(self) except? -1
    @cython.locals(protocol=Protocol, inbox=Inbox, room=Py_ssize_t)
    cdef Py_ssize_t _room(self) except? -1
    @cython.locals(
        protocol=Protocol, inbox=Inbox, outbox=Outbox, keep=bint, arriving=Arriving, events=list, count=Py_ssize_t
    )
    cdef _take_in(self, bytes data, Py_ssize_t room)
    @cython.locals(count=Py_ssize_t)
    cdef Py_ssize_t _interpret(self, list events, bint keep) except? -1
    cpdef bint is_urgent(self) except -1
    @cython.locals(inbox=Inbox)
    cpdef take_message(self)
    cpdef bint lacks_message(self) except -1
    @cython.locals(inbox=Inbox)
    cpdef take_nowait(self)
    cpdef take_kept(self)
    cpdef room_was_made(self)
    cpdef bint has_to_wait(self) except -1
    cpdef wake(self, task)
    cpdef crash(self, exc)
    cpdef bint is_open(self) except -1
    @cython.locals(outbox=Outbox)
    cpdef send_at_once(self, message)
    cpdef bint takes_long(self, message, compress) except -1
    @cython.locals(outbox=Outbox)
    cpdef send_nowait(self, payload, compress, sent)
    @cython.locals(protocol=Protocol)
    cpdef queue(self, payload, compress=*, sent=*)
    cpdef write_queued(self)
    cpdef end(self)
