cdef class Transport:
    cpdef note_edge(self, bint gone)

cdef class SocketTransport(Transport):
    cdef public object _sock
    cdef public object _socket
    cdef public int fd
    cdef public bint ready
    cdef public bint gone
    cdef public object local
    cdef public object remote

    cpdef note_edge(self, bint gone)
    cpdef try_send(self, data)
    cpdef try_receive(self)
