# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, nonecheck=True
"""The twin of ``sockets.py``, which explains it, compiled."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals, PyErr_SetFromErrno
from libc.errno cimport EAGAIN, EINTR, errno

cdef extern from "<sys/socket.h>" nogil:
    ssize_t c_receive "recv" (int, void *, size_t, int)
    ssize_t c_send "send" (int, const void *, size_t, int)

__all__ = ["RECEIVE_SIZE", "Socket"]

cdef enum:
    SIZE = 122_880

RECEIVE_SIZE = SIZE

cdef char received[SIZE]  # No call lets go of the interpreter, so one buffer serves all.


cdef int failed() except -1:
    """Whether to try again (1), or nothing can be done now (0). Raises OSError for any other failure."""
    if errno == EINTR:
        PyErr_CheckSignals()
        return 1
    if errno == EAGAIN:  # EWOULDBLOCK is the same number wherever there is epoll or kqueue.
        return 0
    PyErr_SetFromErrno(OSError)


cdef class Socket:
    cdef object _sock
    cdef int _fd

    def __init__(self, sock):
        self._sock = sock
        self._fd = sock.fileno()

    def __cinit__(self):
        self._fd = -1

    cpdef close(self):
        self._fd = -1
        self._sock.close()

    cpdef Py_ssize_t send(self, data) except -1:
        cdef Py_buffer view
        cdef ssize_t sent
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            while True:
                sent = c_send(self._fd, view.buf, view.len, 0)
                if sent >= 0:
                    return sent
                if not failed():
                    return 0
        finally:
            PyBuffer_Release(&view)

    cpdef receive(self):
        cdef ssize_t size
        while True:
            size = c_receive(self._fd, received, SIZE, 0)
            if size >= 0:
                return PyBytes_FromStringAndSize(received, size)
            if not failed():
                return None
