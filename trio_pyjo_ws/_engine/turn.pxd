cimport cython

cdef double _TURN

@cython.final
cdef class Turn:
    cdef double _began

    cpdef begin(self)
    @cython.locals(now=double)
    cpdef bint is_over(self) except -1
