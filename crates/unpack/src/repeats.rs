//! Numbers that repeat: what followed the last time that the last bytes occurred. Rows of a transform, tied weights and constants are
//! such; trained weights are not.
use crate::Coder;
use crate::mix::{Mixer, slots};
use alloc::vec;
use alloc::vec::Vec;

/// Bytes that must agree.
const AGREE: usize = 8;
/// Lengths of agreement that are told apart.
const LENGTHS: usize = 16;
const KEYS: u32 = 16;

/// Finds repeats within a block, and codes whether they go on.
pub(crate) struct Repeats {
    last: Vec<u32>,
    slots: Vec<u32>,
    mixer: Mixer,
    /// Where the repeat that is going on goes on, and how many of its guesses were right.
    from: usize,
    right: usize,
}

impl Repeats {
    pub(crate) fn new() -> Self {
        Repeats { last: vec![0; 1 << KEYS], slots: slots(LENGTHS), mixer: Mixer::new(1, 1, 255), from: 0, right: 0 }
    }

    /// The place of the bytes that should come at `at`, of which all before are known.
    pub(crate) fn expected(&mut self, data: &[u8], at: usize) -> Option<usize> {
        if at < AGREE {
            return None;
        }
        let tail = &data[at - AGREE..at];
        let key = tail.iter().fold(0u32, |h, b| (h ^ u32::from(*b)).wrapping_mul(0x9E37_79B1)) >> (32 - KEYS);
        let found = core::mem::replace(&mut self.last[key as usize], at as u32) as usize;
        if self.right == 0 {
            self.from = found;
        }
        // Runs of one number are told by their neighbours already.
        let varied = tail.iter().any(|b| *b != tail[0]);
        (varied && self.from >= AGREE && self.from < at && data[self.from - AGREE..self.from] == *tail).then_some(self.from)
    }

    /// Codes whether the expected number comes; `length` is its bytes.
    pub(crate) fn goes_on<C: Coder>(&mut self, coder: &mut C, length: usize, comes: bool) -> bool {
        let comes = self.mixer.code(coder, &mut self.slots, &[self.right.min(LENGTHS - 1)], 0, comes);
        self.right = if comes { self.right + 1 } else { 0 };
        self.from += length;
        comes
    }

    /// No number was expected.
    pub(crate) fn ends(&mut self) {
        self.right = 0;
    }
}
