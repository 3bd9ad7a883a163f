cimport cython

from ..wire.protocol cimport Protocol

cdef Py_ssize_t CORK_SIZE
cdef object _OPEN

cdef class Outbox:
    cdef Protocol _protocol
    cdef readonly object transport
    cdef object _housekeeper
    cdef Py_ssize_t _limit
    cdef readonly object owner
    cdef readonly Py_ssize_t sent
    cdef readonly object unsent
    cdef readonly bint writing
    cdef readonly bint open_message
    cdef readonly bint broken
    cdef readonly bint in_background
    cdef readonly bint watched
    cdef readonly bint corked
    cdef bint _wrote
    cdef list _callbacks
    cdef object _waiting

    cpdef bint is_full(self)
    cpdef bint must_wait(self, bint control)
    cpdef bint send_message(self, message, compress, bint more) except -1
    cpdef call_back(self, call)
    @cython.locals(protocol=Protocol, data=bytes, size=Py_ssize_t, sent=Py_ssize_t)
    cpdef bint flush(self) except -1
    cdef _send_pieces(self, list pieces)
    cpdef bint flush_or_write(self) except -1
    cpdef cork(self)
    cpdef uncork(self)
    cpdef write_soon(self)
    cpdef write_later(self)
    cpdef wait_for_peer(self)
    cpdef watch(self)
    cpdef begin_message(self)
    cpdef end_message(self)
    cpdef begin_write(self)
    cpdef end_write(self)
    cpdef end_background(self)
    cpdef note_sent(self, Py_ssize_t size)
    cpdef progress(self)
    cpdef give_up(self)
    cpdef clear(self)
    cpdef wake(self)
