from .turn cimport Turn

cdef class Hub:
    cdef object _poll
    cdef dict _members
    cdef readonly object fd
    cdef readonly object ready

    cpdef read(self, Turn turn)
