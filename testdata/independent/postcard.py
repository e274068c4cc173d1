"""The part of the postcard wire format that the device formats use. Source: postcard.jamesmunns.com/wire-format.

u8, bool and a byte array of fixed length stand as they are; u16 to u64 and an enum's number are varints; i16 to i64 are those
of 2n, or of -2n - 1 below zero; string, bytes and list have a varint length; an option is 0, or 1 and the value. A varint longer than it need be is read, never written.
"""


class Malformed(Exception):
    pass


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def raw(self, count):
        if count > len(self.data) - self.at:
            raise Malformed("ends in the middle of a field")
        self.at += count
        return self.data[self.at - count : self.at]

    def varint(self, bits):
        value = 0
        for shift in range(0, bits, 7):
            byte = self.raw(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value >> bits:
                    raise Malformed("varint over %d bits" % bits)
                return value
        raise Malformed("varint over %d bits" % bits)

    def u8(self):
        return self.raw(1)[0]

    def u16(self):
        return self.varint(16)

    def u32(self):
        return self.varint(32)

    def u64(self):
        return self.varint(64)

    def signed(self, bits):
        number = self.varint(bits)
        return -(number >> 1) - 1 if number & 1 else number >> 1

    def i32(self):
        return self.signed(32)

    def i64(self):
        return self.signed(64)

    def bool(self):
        value = self.u8()
        if value > 1:
            raise Malformed("neither false nor true")
        return value == 1

    def bytes(self):
        return self.raw(self.u64())

    def string(self):
        try:
            return self.bytes().decode("utf-8")
        except UnicodeDecodeError:
            raise Malformed("string is not UTF-8")

    def list(self, item):
        # Every item of ours has a byte or more, so a false length ends here at the latest where the data ends.
        return [item() for _ in range(self.u64())]

    def option(self, item):
        return item() if self.bool() else None

    def enum(self, names):
        number = self.u32()
        if number >= len(names):
            raise Malformed("unknown variant %d" % number)
        return names[number]


def varint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def raw_bytes(data):
    return varint(len(data)) + data


def string(text):
    return raw_bytes(text.encode("utf-8"))


def listed(items):
    return varint(len(items)) + b"".join(items)


def option(item):
    return b"\0" if item is None else b"\1" + item
