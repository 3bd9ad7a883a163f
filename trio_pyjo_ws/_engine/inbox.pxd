cimport cython

from ..wire.arriving cimport Arriving
from ..wire.protocol cimport Protocol

cdef class Inbox:
    cdef object _owner
    cdef Protocol _protocol
    cdef object _emitter
    cdef Py_ssize_t _max_queue
    cdef Py_ssize_t _max_queue_bytes
    cdef readonly list messages
    cdef readonly bint receiving
    cdef readonly object task
    cdef readonly bint streaming
    cdef readonly bint streamed
    cdef readonly Py_ssize_t dropped
    cdef object _callback
    cdef object _queue
    cdef object _owed
    cdef Arriving _entering

    @cython.locals(messages=list, room=Py_ssize_t)
    cpdef Py_ssize_t room(self) except? -1
    cpdef Py_ssize_t room_bytes(self) except? -1
    @cython.locals(size=Py_ssize_t)
    cpdef Py_ssize_t size(self) except? -1
    cpdef bint wants_whole(self) except -1
    @cython.locals(count=Py_ssize_t)
    cpdef add(self, list messages, bint keep)
    cpdef add_one(self, message, bint keep)
    cpdef open(self, task, bint in_pieces)
    cpdef expect(self, task)
    cpdef enter(self, Arriving arriving)
    cpdef close(self)
    cpdef notify(self)
    cpdef call_owed(self)
    cpdef drop(self)
    cpdef hand_back(self, message)
    cdef _choose(self)
