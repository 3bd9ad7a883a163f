cimport cython

from . cimport masking
from .arriving cimport Arriving
from .codec cimport Decoder
from .inflating cimport Inflating

cdef object _CONNECTING
cdef object _OPEN
cdef object _CLOSING

cdef class Protocol:
    cdef readonly str role
    cdef readonly object handshake
    cdef readonly object agreement
    cdef readonly object state
    cdef public bint masked
    cdef public bint compressed
    cdef public object close
    cdef readonly bint cut
    cdef readonly bint plain
    cdef readonly bint pending
    cdef readonly Py_ssize_t pings_owed
    cdef readonly list outgoing
    cdef readonly bint in_pieces
    cdef readonly Py_ssize_t outgoing_size
    cdef public object on_taken
    cdef Py_ssize_t _taken
    cdef Py_ssize_t _other
    cdef bint _open_message
    cdef object _sent_close
    cdef Decoder _decoder
    cdef Inflating _inflating
    cdef bytes _kept
    cdef object _breach

    @cython.locals(decoder=Decoder, items=list)
    cpdef list read(self, bytes data, Py_ssize_t max_messages, Py_ssize_t max_bytes)
    @cython.locals(decoder=Decoder, inflating=Inflating, items=list, events=list)
    cdef list _read_compressed(self, bytes data, Py_ssize_t max_messages, Py_ssize_t max_bytes)
    cdef bint _is_over(self) except -1
    @cython.locals(head=int)
    cdef list _interpret(self, list items, list events)
    @cython.locals(arriving=Arriving)
    cdef bint _inflate(self, Inflating inflating, list events) except -1
    cdef _control_frame(self, int opcode, bytes payload, list events)
    cdef list _fail(self, exc, list events)
    cpdef fail(self, code, reason, close=*)
    @cython.locals(outgoing=list, data=bytes)
    cpdef bytes take(self)
    cpdef list take_pieces(self)
    cpdef forget(self)
    cpdef put_back(self, list pieces)
    @cython.locals(data=bytes, text=str, head=int)
    cpdef send_message(self, message, compress=*)
    cpdef send_encoded(self, bytes frame)
    @cython.locals(head=int, payload=bytes)
    cpdef bytes encode_message(self, message, compress=*)
    cpdef check_can_compress(self)
    cpdef send_frame(self, frame)
    cpdef send_close(self, code=*, reason=*)
    cdef _send_frame(self, int head, bytes payload)
    cdef _queue(self, bytes frame)
    cdef _queue_other(self, bytes data)
    cdef _move(self, signal)
