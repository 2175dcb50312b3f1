//! Bytes of a file's structure: node and value names, attributes, sizes. Each bit is predicted by the last 0 to 4 and 6 bytes, and by
//! what followed the last time that the last five bytes occurred.
use crate::Coder;
use crate::mix::{Mixer, slots};
use alloc::vec;
use alloc::vec::Vec;

/// Lengths of the contexts in bytes.
const ORDERS: [usize; 6] = [0, 1, 2, 3, 4, 6];
/// Bytes that must agree for a match.
const MATCHED: usize = 5;
/// Contexts of a match: whether there is one, how long, and which bit it expects.
const MATCH_SLOTS: usize = 64;

/// Codes bytes in place; a decoder writes them.
pub fn code<C: Coder>(coder: &mut C, data: &mut [u8]) {
    let bits = (usize::BITS - (data.len() * 16).leading_zeros()).clamp(12, 20);
    let size = 1usize << bits;
    let mut table = slots(size * ORDERS.len() + MATCH_SLOTS);
    let mut mixer = Mixer::new(256, ORDERS.len() + 1, 255);
    let mut last: Vec<u32> = vec![0; size];
    let (mut from, mut length) = (0usize, 0usize);
    for at in 0..data.len() {
        let hashes = ORDERS.map(|order| hash(&data[at.saturating_sub(order)..at], order as u32));
        if length > 0 && from < at && data[from] == data[at.saturating_sub(1)] {
            (from, length) = (from + 1, length + 1);
        } else {
            length = 0;
        }
        if at >= MATCHED {
            let key = hash(&data[at - MATCHED..at], 99) as usize & (size - 1);
            if length == 0 && last[key] > 0 {
                from = last[key] as usize;
                length = (0..32).take_while(|i| *i < from && data[from - 1 - i] == data[at - 1 - i]).count();
            }
            last[key] = at as u32;
        }
        let given = data[at];
        let mut node = 1usize;
        for bit in (0..8).rev() {
            let mut contexts = [0usize; ORDERS.len() + 1];
            for (i, context) in contexts.iter_mut().take(ORDERS.len()).enumerate() {
                let mixed = hashes[i].wrapping_add(node as u32).wrapping_mul(0x9E37_79B1);
                *context = i * size + (mixed >> (32 - bits)) as usize;
            }
            let expected = (length > 0 && from < at).then(|| usize::from(data[from]) | 256).filter(|e| e >> (bit + 1) == node);
            let matched = expected.map_or(0, |e| 2 * length.min(31) + (e >> bit & 1));
            contexts[ORDERS.len()] = size * ORDERS.len() + matched;
            let set = if expected.is_some() { 128 + length.min(31) } else { usize::from(bit as u8) };
            let found = mixer.code(coder, &mut table, &contexts, set, given >> bit & 1 == 1);
            node = node << 1 | usize::from(found);
        }
        data[at] = node as u8;
    }
}

fn hash(bytes: &[u8], seed: u32) -> u32 {
    bytes.iter().fold(seed.wrapping_mul(0x85EB_CA6B) ^ 0x27D4_EB2F, |h, b| (h ^ u32::from(*b)).wrapping_mul(0x0100_0193).rotate_left(7))
}
