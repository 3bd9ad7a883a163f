# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""The bytes of frames, compiled: the twin of ``_codec.py``, which explains them.

The names, the items and the errors are the same, and the rules that frames can break stand there only. What is gained
here: payloads are unmasked eight bytes at a time while they are copied, a frame is built in one allocation, and a whole
uncompressed message costs no Python object but itself.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

from ..errors import RemoteProtocolError
from ._codec import Utf8Validator, breach, size_bound

cdef extern from "Python.h":
    int _PyBytes_Resize(PyObject **value, Py_ssize_t size) except -1

__all__ = ["Decoder", "Utf8Validator", "apply_mask", "encode"]

cdef enum:
    FIN = 0x80
    RSV1 = 0x40
    OPCODE = 0x0F
    TEXT = 0x1
    BINARY = 0x2
    FIN_TEXT = 0x81
    FIN_BINARY = 0x82
    FIRST_CONTROL_OPCODE = 0x8
    MASKED = 0x80
    SHORT = 125
    FIRST_PIECE = 4096  # bytes that are kept ready for a payload of which nothing has arrived


cdef inline void copy_masked(uint8_t *target, const uint8_t *source, Py_ssize_t length, const uint8_t *key) noexcept:
    """XOR while copying. The key's four bytes, twice, are a word; compilers make wider registers of the loop."""
    cdef uint64_t word, value
    cdef Py_ssize_t position = 0
    memcpy(&word, key, 4)
    memcpy(<uint8_t *> &word + 4, key, 4)
    while position + 8 <= length:
        memcpy(&value, source + position, 8)
        value ^= word
        memcpy(target + position, &value, 8)
        position += 8
    while position < length:
        target[position] = source[position] ^ key[position & 3]
        position += 1


cdef inline bytes new_bytes(Py_ssize_t length):
    return PyBytes_FromStringAndSize(NULL, length)


def apply_mask(const unsigned char[::1] payload not None, bytes key not None):
    """XOR ``payload`` with the four bytes of ``key``, over and over (section 5.3). Masks and unmasks alike."""
    cdef Py_ssize_t length = payload.shape[0]
    cdef bytes masked = new_bytes(length)
    if length:
        copy_masked(<uint8_t *> PyBytes_AS_STRING(masked), &payload[0], length, <uint8_t *> PyBytes_AS_STRING(key))
    return masked


def encode(int head, bytes payload not None, bytes key=None):
    """The bytes of a frame whose first byte is ``head``, masked where a ``key`` is given."""
    cdef Py_ssize_t length = PyBytes_GET_SIZE(payload)
    cdef Py_ssize_t start = 2 if length <= SHORT else 4 if length <= 0xFFFF else 10
    cdef int mask = 0 if key is None else MASKED
    cdef bytes frame = new_bytes(start + length + (4 if mask else 0))
    cdef uint8_t *target = <uint8_t *> PyBytes_AS_STRING(frame)
    cdef const uint8_t *source = <const uint8_t *> PyBytes_AS_STRING(payload)
    cdef const uint8_t *key_bytes
    cdef int index
    target[0] = head
    if start == 2:
        target[1] = mask | length
    else:
        target[1] = mask | (126 if start == 4 else 127)
        for index in range(2, start):
            target[index] = (length >> (8 * (start - 1 - index))) & 0xFF
    if mask:
        key_bytes = <const uint8_t *> PyBytes_AS_STRING(key)
        memcpy(target + start, key_bytes, 4)
        copy_masked(target + start + 4, source, length, key_bytes)
    else:
        memcpy(target + start, source, length)
    return frame


cdef class Decoder:
    """Frames out of bytes; see ``_codec.py``."""

    cdef public bint masked
    cdef public Py_ssize_t max_size
    cdef public bint compression
    cdef public bint straight
    cdef public bint parts
    cdef public bint holding
    cdef readonly bint held
    cdef readonly bint plain
    cdef readonly bint pending
    cdef bytes data
    cdef Py_ssize_t position
    # Of the message that is being received in fragments:
    cdef bint fragmented
    cdef bint compressed
    cdef Py_ssize_t size
    cdef object utf8
    # Of the frame whose header is complete and whose payload is not:
    cdef bytes partial
    cdef Py_ssize_t filled
    cdef Py_ssize_t missing
    cdef int head
    cdef uint8_t key[4]
    cdef bint failed

    def __init__(self, bint masked, Py_ssize_t max_size, bint compression=False):
        self.masked = masked
        self.max_size = max_size
        self.compression = compression
        self.straight = True
        self.plain = True
        self.data = b""

    @property
    def midway(self):
        """Whether a message has begun and not ended."""
        return self.fragmented or (self.partial is not None and self.head & OPCODE < FIRST_CONTROL_OPCODE)

    def decode(self, bytes data not None, Py_ssize_t limit):
        """Take ``data`` in, and give at most ``limit`` items of all that has come."""
        cdef list items = []
        cdef Py_ssize_t position = 0
        cdef Py_ssize_t start, end, length
        cdef Py_ssize_t mask_length = 4 if self.masked else 0
        cdef const uint8_t *view
        cdef int head, index
        cdef bint whole
        cdef uint64_t extended
        cdef bytes payload
        self.plain = not self.parts
        self.held = False
        if PyBytes_GET_SIZE(self.data):
            if PyBytes_GET_SIZE(data):
                data = self.data[self.position:] + data
            else:
                data = self.data
                position = self.position
        end = PyBytes_GET_SIZE(data)
        view = <const uint8_t *> PyBytes_AS_STRING(data)
        if self.partial is not None:
            position = self.resume(view, position, end, items)
        while end - position >= 2 and len(items) < limit and not self.failed:
            head = view[position]
            length = view[position + 1]
            if (length >= MASKED) != self.masked:
                self.fail(items, "a client's frames must be masked" if self.masked else "a server's frames are not masked")
                break
            length &= 0x7F
            whole = (head == FIN_BINARY or head == FIN_TEXT) and self.straight and not self.fragmented and not self.parts
            if not whole:
                found = breach(head, length, self.compression, self.fragmented)
                if found is not None:
                    self.fail(items, found)
                    break
                if self.must_wait(head, head & RSV1 or (not head & OPCODE and self.compressed)):
                    self.held = True
                    break
            start = position + 2
            if length > SHORT:
                start += 2 if length == 126 else 8
                if end < start:
                    break
                extended = 0
                for index in range(position + 2, start):
                    extended = extended << 8 | view[index]
                if extended <= (SHORT if length == 126 else 0xFFFF) or extended >> 63:
                    self.fail(
                        items, f"the length {extended} is not in its shortest form, or has its highest bit set"
                    )
                    break
                length = extended
            # The bound is a Python integer, and so is the difference: a sum could run over what a C integer holds.
            if length > self.max_size - self.size and (
                length > size_bound(head, self.max_size, self.compressed) - self.size and not self.parts
            ):
                if self.must_wait(head, True):
                    self.held = True
                    break
                self.fail(items, f"a message of more than {self.max_size} bytes", 1009)
                break
            if end < start + mask_length:
                break
            start += mask_length
            if end - start < length:
                self.begin(view, start, end, head, length, items)
                position = end
                break
            position = start + length
            if head == FIN_TEXT and whole and not self.masked:
                self.give_text(<const char *> view + start, length, items)
                continue
            payload = new_bytes(length)
            if self.masked:
                copy_masked(<uint8_t *> PyBytes_AS_STRING(payload), view + start, length, view + start - 4)
            else:
                memcpy(PyBytes_AS_STRING(payload), view + start, length)
            if whole and head == FIN_BINARY:
                items.append(payload)
            elif whole:
                self.give_text(PyBytes_AS_STRING(payload), length, items)
            else:
                self.finish_frame(head, payload, False, items)
        if self.parts and self.partial is not None:
            self.give_part(items)
        if position == end or self.failed:
            data = b""
            position = 0
        self.data = data
        self.position = position
        self.pending = self.held or (len(items) >= limit and PyBytes_GET_SIZE(data) - position >= 2)
        return items

    cdef bint must_wait(self, int head, bint unfit) noexcept:
        """Whether to hold at a frame that is ``unfit`` for those who want the message whole."""
        return unfit and self.holding and not self.parts and head & OPCODE < FIRST_CONTROL_OPCODE

    cdef int give_part(self, list items) except -1:
        """Give what has come of a frame as a fragment, and let the rest be another."""
        cdef int head = self.head
        cdef int opcode = head & OPCODE
        cdef bytes payload
        if opcode < FIRST_CONTROL_OPCODE and (self.filled or opcode):
            payload = self.partial[:self.filled]
            self.partial = new_bytes(min(self.missing, FIRST_PIECE))
            self.filled = 0
            self.head = head & FIN
            self.finish_frame(head & ~FIN, payload, True, items)
        return 0

    cdef int begin(
        self, const uint8_t *view, Py_ssize_t start, Py_ssize_t end, int head, Py_ssize_t length, list items
    ) except -1:
        """Keep the first part of a payload. What is kept grows with what arrives, never with what is announced."""
        self.head = head
        self.missing = length
        self.filled = 0
        if self.masked:
            memcpy(self.key, view + start - 4, 4)
        self.partial = new_bytes(min(length, FIRST_PIECE))
        if head & OPCODE in (TEXT, BINARY):
            self.expect(head)
        self.resume(view, start, end, items)
        return 0

    cdef Py_ssize_t resume(
        self, const uint8_t *view, Py_ssize_t position, Py_ssize_t end, list items
    ) except -1:
        """Add to the payload that is being received; return where in the data it ends."""
        cdef Py_ssize_t length = min(end - position, self.missing)
        cdef Py_ssize_t index
        cdef uint8_t turned[4]
        cdef uint8_t *target
        cdef bytes payload
        cdef bint whole
        if self.filled + length > PyBytes_GET_SIZE(self.partial):
            self.grow(min(self.filled + self.missing, 2 * (self.filled + length)))
        target = <uint8_t *> PyBytes_AS_STRING(self.partial) + self.filled
        if self.masked:
            copy_masked(target, view + position, length, self.key)
            for index in range(4):
                turned[index] = self.key[(index + length) & 3]
            memcpy(self.key, turned, 4)
        else:
            memcpy(target, view + position, length)
        self.filled += length
        self.missing -= length
        if self.utf8 is not None and not self.is_valid_text(self.head, target, length, not self.missing):
            self.fail(items, "text that is not UTF-8", 1007)
        elif not self.missing:
            payload = self.partial
            self.partial = None
            whole = self.straight and not (self.parts or self.fragmented)
            whole = whole and (self.head == FIN_BINARY or self.head == FIN_TEXT)
            if not whole:
                self.finish_frame(self.head, payload, True, items)
            elif self.head == FIN_BINARY:
                items.append(payload)
            else:
                self.give_text(PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload), items)
        return position + length

    cdef int grow(self, Py_ssize_t capacity) except -1:
        """Make room in the payload. A bytes object may be resized while this is the only reference to it."""
        cdef PyObject *owned = <PyObject *> self.partial
        Py_INCREF(self.partial)
        self.partial = None
        _PyBytes_Resize(&owned, capacity)
        self.partial = <bytes> owned
        Py_DECREF(self.partial)
        return 0

    cdef int expect(self, int head) except -1:
        """A message begins: what the bytes that follow have to be."""
        self.utf8 = Utf8Validator() if head & OPCODE == TEXT and not head & RSV1 else None
        return 0

    cdef bint is_valid_text(self, int head, const uint8_t *piece, Py_ssize_t length, bint frame_ends) except -1:
        """Whether a piece goes on with an uncompressed text message (section 8.1); other payloads always do."""
        if self.utf8 is None or head & OPCODE >= FIRST_CONTROL_OPCODE:
            return True
        return self.utf8.accepts(PyBytes_FromStringAndSize(<const char *> piece, length), frame_ends and head & FIN != 0)

    cdef int give_text(self, const char *payload, Py_ssize_t length, list items) except -1:
        try:
            items.append(PyUnicode_DecodeUTF8(payload, length, NULL))
        except UnicodeDecodeError:
            self.fail(items, "text that is not UTF-8", 1007)
        return 0

    cdef int finish_frame(self, int head, bytes payload, bint validated, list items) except -1:
        """A frame is complete that is no whole message: give it, and remember what the next one may be."""
        cdef int opcode = head & OPCODE
        if opcode < FIRST_CONTROL_OPCODE:
            if opcode:
                self.compressed = head & RSV1 != 0
                if not validated:
                    self.expect(head)
            if not validated and not self.is_valid_text(
                head, <const uint8_t *> PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload), True
            ):
                self.fail(items, "text that is not UTF-8", 1007)
                return 0
            self.fragmented = not head & FIN
            self.size = self.size + PyBytes_GET_SIZE(payload) if self.fragmented else 0
            if not self.fragmented:
                self.utf8 = None
                self.parts = False
        self.plain = False
        items.append((head, payload))
        return 0

    cdef int fail(self, list items, str message, int code=1002) except -1:
        self.failed = True
        self.plain = False
        self.partial = None
        items.append(RemoteProtocolError(message, code))
        return 0
