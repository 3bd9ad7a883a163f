cimport cython

from . cimport masking

cdef int LOOSE

cdef class Utf8Decoder:
    cdef bytes _rest
    @cython.locals(data=bytes, rest=bytes, used=Py_ssize_t)
    cpdef str decode(self, bytes piece, bint final)

cdef class Arriving:
    cdef readonly bint begun
    cdef readonly bint compressed
    cdef readonly Py_ssize_t size
    cdef readonly Py_ssize_t held
    cdef readonly bint claimed
    cdef readonly bint discarded
    cdef readonly bint ended
    cdef Utf8Decoder _text
    cdef list _parts
    cdef int _loose
    cdef masking.Buffer _buffer
    cpdef claim(self)
    cpdef unclaim(self)
    cpdef finish(self)
    cpdef note(self, Py_ssize_t size)
    cpdef begin(self, int opcode, bint compressed)
    @cython.locals(text=Utf8Decoder, part=str)
    cpdef add(self, bytes payload, bint final)
    cpdef add_part(self, bytes data, Py_ssize_t start, Py_ssize_t end, bytes key, Py_ssize_t rest)
    cpdef take(self)
    cpdef restart(self)
    cpdef discard(self)
