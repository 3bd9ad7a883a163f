cimport cython

from .arriving cimport Arriving
from .codec cimport Decoder

cdef class Inflating:
    cdef readonly bint active
    cdef readonly bint held
    cdef public Py_ssize_t budget
    cdef Decoder _decoder
    cdef object _deflate
    cdef bint _last
    cpdef feed(self, bytes payload, bint last)
    @cython.locals(decoder=Decoder, arriving=Arriving, size=Py_ssize_t, room=Py_ssize_t, held=Py_ssize_t, output=bytes)
    cpdef advance(self)
