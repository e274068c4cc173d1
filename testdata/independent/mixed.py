"""Reads and writes the literals of edits, a second time and from the document alone.

Source: docs/formats/patch.md, "Mixed literals". Slow, and made for a few kilobytes.
"""

SIGMOID = [1, 2, 3, 6, 10, 16, 27, 45, 73, 120, 194, 310, 488, 747, 1101, 1546, 2047, 2549, 2994, 3348, 3607, 3785, 3901]
SIGMOID += [3975, 4022, 4050, 4068, 4079, 4085, 4089, 4092, 4093, 4094]
A, B, MASK = 0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93, 2**64 - 1


def squash(x):
    at, part = divmod(x + 2048, 128)
    return (SIGMOID[at] * (128 - part) + SIGMOID[at + 1] * part + 64) // 128


SQUASHED = [squash(x) for x in range(-2047, 2048)]
STRETCH = [next((n - 2047 for n, p in enumerate(SQUASHED) if p >= wanted), 2047) for wanted in range(4096)]


class Slot:
    def __init__(self, probability=1 << 21):
        self.probability, self.count = probability, 0

    def known(self):
        return self.probability >> 10

    def learn(self, bit, limit):
        target = (1 << 22) - 1 if bit else 0
        self.probability += (target - self.probability) * (131072 // (2 * self.count + 3)) >> 16
        self.count = min(self.count + 1, limit)


class Model:
    def __init__(self):
        self.groups, self.states, self.guesses, self.weights, self.corrections = {}, {}, {}, {}, {}
        self.history, self.index = bytearray(), {}
        self.front = bytes(4)
        self.matched = self.matched_length = 0

    def begin(self, front, window):
        self.front = (bytes(4) + front)[-4:]
        self.start = self.next = len(self.history)
        for byte in window:
            self.history.append(byte)
            self.index[self.place()] = len(self.history)
        self.end = len(self.history)
        self.hits, self.matched_length = 255, 0
        self.begin_byte()

    def place(self):
        return (int.from_bytes(self.history[-5:], "big") * A & MASK) >> 46

    def begin_byte(self):
        self.bits, self.begun = 0, 1
        self.expected = self.history[self.next] if self.next < self.end else None
        self.match = self.history[self.matched] if self.matched_length else None
        rather_matched = self.expected is None or self.matched_length == 32 or not self.hits & 7
        guess = self.match if self.match is not None and rather_matched else self.expected
        by_hit, by_match = guess == self.expected and self.hits & 1, guess == self.match and self.matched_length >= 8
        self.guess = guess if guess is not None and (by_hit or by_match) else None
        self.telling = [self.expected, self.match]

    def half(self):
        number = lambda byte: 256 if byte is None else byte
        front = int.from_bytes(self.front, "big")
        contexts = [front & 0xFF, front & 0xFFFF, front & 0xFFFFFF, front, number(self.expected) << 8 | front & 0xFF]
        contexts.append((self.hits & 7) << 18 | number(self.expected) << 9 | number(self.match))
        self.slots = []
        for n, context in enumerate(contexts):
            h = (context | n << 32 | self.begun << 40) * A & MASK
            h = (h ^ h >> 32) * B & MASK
            group, check = h >> 48, h >> 8 & 0xFFFFFFFF | 1
            slots = self.groups.setdefault(group, [0])
            if slots[0] != check:
                # In place: two contexts may share a group.
                slots[:] = [check] + [Slot() for _ in range(15)]
            self.slots.append(slots)

    def predict(self):
        if self.guess is not None:
            return self.predict_guess()
        if self.bits % 4 == 0:
            self.half()
        bits = self.bits % 4
        place = 1 << bits | self.begun & (1 << bits) - 1
        self.used = [group[place] for group in self.slots]
        inputs, self.used_states, chosen = [STRETCH[slot.known()] for slot in self.used], [], 0
        for n, byte in enumerate(self.telling):
            if byte is None or (byte | 256) >> 8 - self.bits != self.begun:
                inputs.append(0)
                continue
            chosen |= 2 | min(self.matched_length, 15) // 4 << 2 if n else 1 | (self.hits & 3) << 4
            key = n, (self.matched_length if n else self.hits), byte >> 7 - self.bits & 1
            state = self.states.setdefault(key, Slot())
            self.used_states.append(state)
            inputs.append(STRETCH[state.known()])
        return self.mix(inputs, ("bit", chosen), ("bit", self.begun))

    def predict_guess(self):
        kinds = [self.expected is None, self.match is None, self.match == self.expected, self.guess == self.expected, True]
        kind, front, hashed = kinds.index(True), int.from_bytes(self.front, "big"), lambda number: (number * A & MASK) >> 48
        places = [kind << 12 | self.hits << 4 | self.matched_length // 4]
        places.append(kind << 11 | self.matched_length << 5 | self.hits & 31)
        places.append(hashed(kind << 18 | (self.hits & 3) << 16 | (front & 0xFF) << 8 | self.guess))
        places.append(hashed((self.hits & 1) << 24 | (front & 0xFFFF) << 8 | self.guess))
        places.append(hashed((front & 0xFFFFFF) << 8 | self.guess))
        self.used_states = [self.guesses.setdefault(place, Slot()) for place in enumerate(places)]
        self.used = []
        inputs = [STRETCH[slot.known()] for slot in self.used_states]
        return self.mix(inputs, ("guess", kind << 3 | self.hits & 7), ("guess", self.guess))

    def mix(self, inputs, chosen, corrected):
        self.inputs = inputs + [256]
        self.used_weights = self.weights.setdefault(chosen, [19661] * len(self.inputs))
        total = sum(weight * value for weight, value in zip(self.used_weights, self.inputs))
        x = max(-2047, min(2047, total >> 16))
        self.mixed = squash(x)
        point, part = divmod(x + 2048, 128)
        points = self.corrections.setdefault(corrected, [Slot(value << 10) for value in SIGMOID])
        self.corrected = points[point + (part >= 64)]
        between = (points[point].known() * (128 - part) + points[point + 1].known() * part) // 128
        return max(1, min(4095, (self.mixed + between + 1) // 2))

    def update(self, bit):
        error = ((bit << 12) - self.mixed) * (14 if self.guess is None else 22)
        for n, value in enumerate(self.inputs):
            weight = self.used_weights[n] + (value * error + 32768 >> 16)
            self.used_weights[n] = max(-(1 << 20), min(1 << 20, weight))
        for slot in self.used:
            slot.learn(bit, 40)
        for slot in self.used_states + [self.corrected]:
            slot.learn(bit, 127)
        if self.guess is not None:
            guess, self.guess = self.guess, None
            self.telling = [None if byte == guess else byte for byte in self.telling]
            if bit:
                self.end_byte(guess)
            return
        self.begun, self.bits = self.begun << 1 | bit, self.bits + 1
        if self.bits == 8:
            self.end_byte(self.begun & 255)

    def end_byte(self, byte):
        if self.expected is not None:
            self.hits = (self.hits << 1 | (self.expected == byte)) & 255
            self.next += 1
        if self.match is not None:
            self.matched_length = min(self.matched_length + 1, 32) if self.match == byte else 0
            self.matched += 1
        self.front = self.front[1:] + bytes([byte])
        self.history.append(byte)
        if not self.matched_length:
            self.find()
        self.index[self.place()] = len(self.history)
        self.begin_byte()

    def find(self):
        at, end, length = self.index.get(self.place(), 0), len(self.history), 0
        while length < min(32, at) and self.history[at - 1 - length] == self.history[end - 1 - length]:
            length += 1
        if length >= 5:
            self.matched, self.matched_length = at, length
            if not self.hits & 15 and self.start <= at < self.end:
                self.next, self.hits = at, 255


def encode(runs):
    """`runs`: (bytes in front, old bytes, literals)."""
    model, low, high, out = Model(), 0, 2**32 - 1, bytearray()

    def code(bit):
        nonlocal low, high
        middle = low + ((high - low) * model.predict() >> 12)
        low, high = (low, middle) if bit else (middle + 1, high)
        model.update(bit)
        while low >> 24 == high >> 24:
            out.append(high >> 24)
            low, high = low << 8 & 0xFFFFFFFF, high << 8 & 0xFFFFFFFF | 0xFF

    for front, window, literals in runs:
        model.begin(front, window)
        for byte in literals:
            if model.guess is not None:
                is_it = model.guess == byte
                code(is_it)
                if is_it:
                    continue
            for n in range(7, -1, -1):
                code(byte >> n & 1)
    return bytes(out) + (bytes([(low >> 24) + 1]) if low else b"")


class Decoder:
    def __init__(self, packed):
        self.model, self.low, self.high = Model(), 0, 2**32 - 1
        self.packed, self.at = packed + bytes(4), 4
        self.code = int.from_bytes(self.packed[:4], "big")

    def bit(self):
        middle = self.low + ((self.high - self.low) * self.model.predict() >> 12)
        bit = int(self.code <= middle)
        self.low, self.high = (self.low, middle) if bit else (middle + 1, self.high)
        self.model.update(bit)
        while self.low >> 24 == self.high >> 24:
            self.low, self.high = self.low << 8 & 0xFFFFFFFF, self.high << 8 & 0xFFFFFFFF | 0xFF
            following = self.packed[self.at] if self.at < len(self.packed) else 0
            self.code, self.at = self.code << 8 & 0xFFFFFFFF | following, self.at + 1
        return bit

    def run(self, front, window, length):
        self.model.begin(front, window)
        out = bytearray()
        for _ in range(length):
            guess, byte = self.model.guess, 0
            if guess is not None and self.bit():
                out.append(guess)
                continue
            for _ in range(8):
                byte = byte << 1 | self.bit()
            out.append(byte)
        return bytes(out)
