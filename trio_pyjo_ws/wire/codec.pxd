cimport cython

from . cimport masking
from .arriving cimport Arriving

cdef int FIN, RSV1, RSV2_RSV3, OPCODE, TEXT, BINARY, FIN_TEXT, FIN_BINARY, FIRST_CONTROL_OPCODE, MASKED, SHORT
cdef Py_ssize_t FRAMES_AT_ONCE, CONTROL_PRICE
cdef frozenset RESERVED_OPCODES

@cython.locals(opcode=int)
cdef object breach(int head, Py_ssize_t length, bint compression, bint fragmented)

cdef class Decoder:
    cdef readonly bint masked
    cdef public Py_ssize_t max_size
    cdef public bint compression
    cdef readonly Py_ssize_t max_empty_fragments
    cdef public bint watch
    cdef public bint holding
    cdef readonly bint held
    cdef readonly bint plain
    cdef readonly bint pending
    cdef readonly Arriving arriving
    cdef bytes _data
    cdef Py_ssize_t _position
    cdef Py_ssize_t _empty_fragments
    cdef Py_ssize_t _missing
    cdef int _head
    cdef bytes _key
    cdef masking.Buffer _seen
    cdef bint _failed

    @cython.locals(
        items=list, left=Py_ssize_t, stop=bint, more=bint, position=Py_ssize_t, end=Py_ssize_t, masked=bint, mask_length=Py_ssize_t, head=int,
        length=Py_ssize_t, arriving=Arriving, whole=bint, start=Py_ssize_t, extended="unsigned long long"
    )
    cpdef list decode(self, bytes data, Py_ssize_t limit)
    @cython.locals(arriving=Arriving)
    cpdef finish(self)
    @cython.locals(arriving=Arriving)
    cpdef bint unclaim(self) except -1
    @cython.locals(arriving=Arriving, opcode=int, max_size=Py_ssize_t)
    cdef bint _is_too_large(self, int head, Py_ssize_t length) except -1
    cdef _begin(self, int head)
    @cython.locals(opcode=int, payload=bytes)
    cdef bint _take_frame(self, int head, bytes data, Py_ssize_t start, Py_ssize_t end, list items) except -1
    @cython.locals(size=Py_ssize_t, turn=int, seen=masking.Buffer)
    cdef tuple _resume(self, bytes data, Py_ssize_t position, Py_ssize_t end, list items)
    @cython.locals(arriving=Arriving, payload=bytes)
    cdef bint _collect(self, bint final, bytes data, Py_ssize_t start, Py_ssize_t end, list items) except -1
    cdef _give_text(self, bytes data, Py_ssize_t start, Py_ssize_t end, list items)
    cdef _show(self, list items, int head, bytes payload)
    cdef _fail(self, list items, str message, int code=*)
