cdef class Turn:
    cdef double _began

    cpdef begin(self)
    cpdef bint is_over(self) except -1
