//! Adaptive probabilities, and their mixture: what several contexts predict is weighted by how right they were.
//!
//! After Mahoney's lpaq (2007): predictions are added in the logistic domain, weights follow the gradient of the coding cost. All
//! arithmetic is on integers, so that every machine decodes the same.
use crate::Coder;
use alloc::vec;
use alloc::vec::Vec;

/// Most contexts of one bit.
pub(crate) const MOST: usize = 8;

/// A probability of one (upper 22 bits) and how often it was used (lower 10).
const UNKNOWN: u32 = 1 << 31;

/// What the `n`-th use of a probability moves it by: 65536 / (n + 1.5).
const SHARES: [u32; 1024] = {
    let mut shares = [0; 1024];
    let mut n = 0;
    while n < shares.len() {
        shares[n] = 131_072 / (2 * n as u32 + 3);
        n += 1;
    }
    shares
};

/// The logistic function: from -2047..2047 (256 is a factor of e) to 1..4095 of 4096.
fn squash(x: i32) -> i32 {
    const TABLE: [i32; 33] = [
        1, 2, 3, 6, 10, 16, 27, 45, 73, 120, 194, 310, 488, 747, 1101, 1546, 2047, 2549, 2994, 3348, 3607, 3785, 3901, 3975, 4024, 4050,
        4068, 4079, 4085, 4089, 4092, 4093, 4094,
    ];
    let x = x.clamp(-2047, 2047) + 2048;
    let (at, part) = ((x >> 7) as usize, x & 127);
    let value = (TABLE[at] * (128 - part) + TABLE[at + 1] * part + 64) >> 7;
    value.clamp(1, 4095)
}

/// Mixes what contexts predict.
pub(crate) struct Mixer {
    /// The inverse of [`squash`] for each of its 4096 values.
    stretched: Vec<i16>,
    /// A weight for each context, by set; 65536 is 1.
    weights: Vec<i32>,
    /// Contexts of a set.
    inputs: usize,
    /// Uses after which a probability no longer slows down.
    limit: u32,
}

impl Mixer {
    pub(crate) fn new(sets: usize, inputs: usize, limit: u32) -> Self {
        let mut stretched = vec![0i16; 4096];
        let mut next = 0;
        for x in -2047..=2047 {
            let value = squash(x) as usize;
            for s in stretched.iter_mut().take(value + 1).skip(next) {
                *s = x as i16;
            }
            next = next.max(value + 1);
        }
        for s in stretched.iter_mut().skip(next) {
            *s = 2047;
        }
        Mixer { stretched, weights: vec![(80_000 / inputs) as i32; sets * inputs], inputs, limit }
    }

    /// Codes a bit that the slots at `contexts` predict, with the weights of a set, and learns from it.
    #[inline]
    pub(crate) fn code<C: Coder>(&mut self, coder: &mut C, slots: &mut [u32], contexts: &[usize], set: usize, bit: bool) -> bool {
        let mut inputs = [0i32; MOST];
        let weights = &mut self.weights[set * self.inputs..][..self.inputs];
        let mut sum = 0i64;
        for ((input, context), weight) in inputs.iter_mut().zip(contexts).zip(weights.iter()) {
            *input = i32::from(self.stretched[(slots[*context] >> 20) as usize]);
            sum += i64::from(*input) * i64::from(*weight);
        }
        let expected = squash((sum >> 16).clamp(-2047, 2047) as i32);
        let bit = coder.bit(expected as u32 * 16 + 8, bit);
        let error = ((i32::from(bit) << 12) - expected) * 6;
        for (weight, input) in weights.iter_mut().zip(&inputs) {
            *weight += (input * error + 0x8000) >> 16;
        }
        for context in contexts {
            let slot = &mut slots[*context];
            let (p, n) = ((*slot >> 10) as i64, *slot & 1023);
            let target = if bit { (1i64 << 22) - 1 } else { 0 };
            let p = p + (((target - p) * i64::from(SHARES[n as usize])) >> 16);
            *slot = (p as u32) << 10 | (n + u32::from(n < self.limit));
        }
        bit
    }
}

/// A probability of one (upper 16 bits) that is used by itself, and how often it was used (lower 16).
#[derive(Clone, Copy)]
pub(crate) struct Chance(u32);

/// Uses after which a chance no longer slows down.
const SETTLED: u32 = 250;

impl Chance {
    /// Codes a bit and learns from it.
    #[inline]
    pub(crate) fn code<C: Coder>(&mut self, coder: &mut C, bit: bool) -> bool {
        let (p, n) = (self.0 >> 16, self.0 & 0xFFFF);
        let bit = coder.bit(p.clamp(32, 65535 - 32), bit);
        let share = SHARES[n as usize & 1023];
        let p = match bit {
            true => p + (((65535 - p) * share) >> 16),
            false => p - ((p * share) >> 16),
        };
        self.0 = p << 16 | (n + u32::from(n < SETTLED));
        bit
    }
}

/// Chances that know nothing yet.
pub(crate) fn chances(count: usize) -> Vec<Chance> {
    vec![Chance(1 << 31); count]
}

/// Slots that know nothing yet.
pub(crate) fn slots(count: usize) -> Vec<u32> {
    vec![UNKNOWN; count]
}
