cpdef bytes apply_mask(payload, bytes key)
cpdef bytes unmasked(bytes data, Py_ssize_t start, Py_ssize_t end)
cpdef bytes encode(int head, bytes payload, bytes key=*)

cdef class Buffer:
    cdef bytes data
    cdef Py_ssize_t size
    cdef int reserve(self, Py_ssize_t more, Py_ssize_t rest) except -1
    cpdef extend(self, bytes data)
    cpdef extend_part(self, bytes data, Py_ssize_t start, Py_ssize_t end, bytes key, Py_ssize_t rest)
    cpdef bytes take(self)
