//! Random choices that repeat: SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators").

/// A stream of random numbers.
pub(crate) struct Random(u64);

impl Random {
    /// The stream of one case.
    pub(crate) fn of(seed: u64, target: &str, number: u64) -> Random {
        let name = target.bytes().fold(0u64, |h, b| h.wrapping_mul(0x0100_0000_01b3) ^ u64::from(b));
        let mut r = Random(seed ^ name.rotate_left(32));
        r.0 = r.next() ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        r
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`; 0 for none.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        if n == 0 { 0 } else { (self.next() % n as u64) as usize }
    }

    /// True in `percent` of all cases.
    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of a list that is not empty.
    pub(crate) fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }
}
