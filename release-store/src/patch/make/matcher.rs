//! Finding what two runs of bytes share, in the manner of bsdiff (Colin Percival, "Naive differences of executable code",
//! 2003): exact matches from a suffix array are grown over places that differ in a few bytes.

use super::super::address_map::Match;

/// Longer matches are taken as found: comparing on costs more than it tells.
const LONG_ENOUGH: usize = 1 << 16;

/// In how many pieces old bytes are sorted where memory counts, and what is not worth a piece. Sorting takes four bytes of
/// memory for each of a piece, and a search looks into all of them.
const PIECES: usize = 4;
const MIN_PIECE_BYTES: usize = 4 << 20;

/// Suffix arrays over old bytes.
pub(super) struct Suffixes<'a> {
    old: &'a [u8],
    pieces: Vec<Piece<'a>>,
}

impl<'a> Suffixes<'a> {
    /// Sorts the suffixes of `old`, which has fewer than 2³¹ bytes.
    pub(super) fn new(old: &'a [u8]) -> Self {
        Self { old, pieces: vec![Piece::new(0, old, 1)] }
    }

    /// As [`Self::new`] in half the memory: only every other suffix counts, so that a match may be found a byte late.
    pub(super) fn sparse(old: &'a [u8]) -> Self {
        let bytes = old.len().div_ceil(PIECES).max(MIN_PIECE_BYTES);
        let pieces = old.chunks(bytes).enumerate().map(|(n, piece)| Piece::new(n * bytes, piece, 2));
        Self { old, pieces: pieces.collect() }
    }

    /// Where the longest match of `new`'s beginning stands, and its length.
    fn longest(&self, new: &[u8]) -> (usize, usize) {
        let mut best = (0, 0);
        for piece in &self.pieces {
            let (at, mut len) = piece.longest(new);
            if at + len == piece.start + piece.bytes.len() {
                len += common(&self.old[at + len..], &new[len..]);
            }
            if len > best.1 {
                best = (at, len);
            }
        }
        best
    }
}

/// The suffix array of some of the old bytes.
struct Piece<'a> {
    start: usize,
    bytes: &'a [u8],
    order: Vec<i32>,
    /// For each two bytes: how many suffixes are smaller than all that begin with them.
    starts: Vec<u32>,
}

impl<'a> Piece<'a> {
    /// Sorts the suffixes of `bytes`, and keeps those that begin at one in `every` places.
    fn new(start: usize, bytes: &'a [u8], every: usize) -> Self {
        let mut order = vec![0; bytes.len()];
        divsufsort::sort_in_place(bytes, &mut order);
        order.retain(|at| (*at as usize).is_multiple_of(every));
        order.shrink_to_fit();
        let mut starts = vec![0_u32; (1 << 16) + 1];
        for at in &order {
            let suffix = &bytes[*at as usize..];
            starts[match suffix {
                [first, second, ..] => pair_number(&[*first, *second]) + 1,
                // A single byte: the first of those that begin with it.
                _ => pair_number(&[suffix[0], 0]),
            }] += 1;
        }
        let mut sum = 0;
        for start in &mut starts {
            sum += *start;
            *start = sum;
        }
        Self { start, bytes, order, starts }
    }

    /// Where in the old bytes the longest match of `new`'s beginning stands, and its length, up to the end of this piece.
    fn longest(&self, new: &[u8]) -> (usize, usize) {
        let (mut low, mut high) = (0, self.order.len().saturating_sub(1));
        let (mut low_len, mut high_len) = (0, 0);
        if let Some(pair) = new.first_chunk::<2>().map(|pair| pair_number(pair)) {
            // Nothing outside has both bytes, so the best outside is no better than what stands beside.
            low = low.max((self.starts[pair] as usize).saturating_sub(1));
            high = high.min(self.starts[pair + 1] as usize);
        }
        while high - low >= 2 {
            let middle = low + (high - low) / 2;
            let at = self.order[middle] as usize;
            let known = low_len.min(high_len);
            let suffix = &self.bytes[at..];
            let len = known + common(suffix.get(known..).unwrap_or_default(), new.get(known..).unwrap_or_default());
            if len > LONG_ENOUGH {
                return (self.start + at, len);
            }
            let smaller = match (suffix.get(len), new.get(len)) {
                (None, _) => true,
                (_, None) => false,
                (Some(old), Some(new)) => old < new,
            };
            if smaller {
                (low, low_len) = (middle, len);
            } else {
                (high, high_len) = (middle, len);
            }
        }
        let candidate = |place: usize| {
            let at = self.order[place] as usize;
            (self.start + at, common(&self.bytes[at..], new))
        };
        let (first, second) = (candidate(low), candidate(high));
        if first.1 > second.1 { first } else { second }
    }
}

fn pair_number(pair: &[u8]) -> usize {
    usize::from(pair[0]) << 8 | usize::from(pair[1])
}

/// Which runs of [`Self::BYTES`] bytes there may be in old bytes. Most of what is new is told from them at once, without a
/// search.
struct Filter {
    bits: Vec<u64>,
    shift: u32,
}

impl Filter {
    /// No match of fewer bytes is ever taken.
    const BYTES: usize = 16;

    fn new(old: &[u8]) -> Self {
        let log = (usize::BITS - old.len().leading_zeros() + 2).max(6);
        let mut filter = Self { bits: vec![0; 1 << (log - 6)], shift: 64 - log };
        for run in old.windows(Self::BYTES) {
            let place = filter.place(run);
            filter.bits[place >> 6] |= 1 << (place & 63);
        }
        filter
    }

    fn place(&self, run: &[u8]) -> usize {
        let half = |at: usize| run[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let mixed =
            (half(0) ^ half(8).wrapping_mul(0xff51_afd7_ed55_8ccd).rotate_left(31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((mixed ^ mixed >> 32).wrapping_mul(0xc4ce_b9fe_1a85_ec53) >> self.shift) as usize
    }

    /// Whether old bytes may hold what `new` begins with.
    fn may_hold(&self, new: &[u8]) -> bool {
        let Some(run) = new.get(..Self::BYTES) else { return true };
        let place = self.place(run);
        self.bits[place >> 6] >> (place & 63) & 1 == 1
    }
}

/// How many bytes both begin with.
fn common(a: &[u8], b: &[u8]) -> usize {
    let mut len = 0;
    for (a, b) in a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0) {
        let differ = u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b);
        if differ != 0 {
            return len + (differ.trailing_zeros() / 8) as usize;
        }
        len += 8;
    }
    len + a[len..].iter().zip(&b[len..]).take_while(|(a, b)| a == b).count()
}

/// The pieces of `new` that are copied from the old bytes of `suffixes`, in order. A new match counts if it explains over
/// `threshold` bytes more than going on with the last one does.
pub(super) fn matches(suffixes: &Suffixes<'_>, new: &[u8], threshold: usize) -> Vec<Match> {
    let old = suffixes.old;
    let mut found = Vec::new();
    if old.len() < 2 {
        return found;
    }
    let filter = Filter::new(old);
    let (mut scan, mut len, mut at) = (0_usize, 0_usize, 0_usize);
    // The match that is being grown: where it was found in new and old.
    let (mut last_scan, mut last_at) = (0_usize, 0_usize);
    while scan < new.len() {
        let mut score = 0_usize;
        scan += len;
        let mut scored = scan;
        let goes_on =
            |place: usize| (place + last_at).checked_sub(last_scan).and_then(|at| old.get(at)) == Some(&new[place]);
        while scan < new.len() {
            (at, len) = if filter.may_hold(&new[scan..]) { suffixes.longest(&new[scan..]) } else { (at, 1) };
            while scored < scan + len {
                score += usize::from(goes_on(scored));
                scored += 1;
            }
            if (len == score && len > 1) || len > score + threshold {
                break;
            }
            if goes_on(scan) && score > 0 {
                score -= 1;
            }
            scan += 1;
        }
        if scan >= new.len() {
            (scan, len) = (new.len(), 0);
        }
        if len == score && scan < new.len() {
            continue;
        }
        let mut forward = grow(old[last_at..].iter().zip(&new[last_scan..scan]));
        let mut backward = 0;
        if scan < new.len() {
            backward = grow(old[..at].iter().rev().zip(new[last_scan..scan].iter().rev()));
        }
        if forward + backward > scan - last_scan {
            // Both claim some bytes: the cut goes where most of them are right.
            let overlap = forward + backward - (scan - last_scan);
            let (mut balance, mut best, mut cut) = (0_i64, 0_i64, 0);
            for place in 0..overlap {
                let by_last = last_scan + forward - overlap + place;
                balance += i64::from(new[by_last] == old[last_at + forward - overlap + place]);
                balance -= i64::from(new[scan - backward + place] == old[at - backward + place]);
                if balance > best {
                    (best, cut) = (balance, place + 1);
                }
            }
            forward = forward + cut - overlap;
            backward -= cut;
        }
        if forward > 0 {
            found.push(Match { new: last_scan as u32, old: last_at as u32, len: forward as u32 });
        }
        (last_scan, last_at) = (scan - backward, at - backward);
    }
    found
}

/// How far a match is worth growing: to where most of what was passed is equal.
fn grow<'a>(pairs: impl Iterator<Item = (&'a u8, &'a u8)>) -> usize {
    let (mut equal, mut best, mut grown) = (0_i64, 0_i64, 0_usize);
    for (place, (a, b)) in pairs.enumerate() {
        equal += i64::from(a == b);
        let passed = place as i64 + 1;
        if equal * 2 - passed > best {
            (best, grown) = (equal * 2 - passed, place + 1);
        }
    }
    grown
}
