//! Integers as protobuf writes them, seven bits a byte: the bit length of each is told by that of the one before.
use crate::Coder;
use crate::archive::{number, write_number};
use crate::floats::tree;
use crate::mix::{Chance, chances};
use alloc::vec::Vec;

/// Bits below the highest that are coded.
const CODED: u32 = 3;

/// What is learned of such integers, over all spans of a block.
pub(crate) struct Varints {
    lengths: Vec<Chance>,
    details: Vec<Chance>,
    written: Vec<u8>,
}

impl Varints {
    pub(crate) fn new() -> Self {
        Varints { lengths: chances(65 << 7), details: chances(65 << CODED), written: Vec::new() }
    }

    /// Codes a span in place; a decoder writes it.
    pub(crate) fn code<C: Coder>(&mut self, coder: &mut C, span: &mut [u8]) {
        let (mut at, mut before) = (0, 0);
        while at < span.len() {
            let given = number(&span[at..]).map_or(0, |(value, _)| folded(value));
            let length = tree(coder, &mut self.lengths[before << 7..(before + 1) << 7], 7, 64 - given.leading_zeros()).min(64);
            before = length as usize;
            let mut found = u64::from(length > 0);
            let mut left = length.saturating_sub(1);
            let coded = left.min(CODED);
            left -= coded;
            if coded > 0 {
                let context = before << CODED;
                let high =
                    tree(coder, &mut self.details[context..context + (1 << CODED)], coded, (given >> left) as u32 & ((1 << coded) - 1));
                found = found << coded | u64::from(high);
            }
            while left > 0 {
                let part = left.min(32);
                left -= part;
                found = found << part | u64::from(coder.raw((given >> left) as u32, part));
            }
            self.written.clear();
            write_number(&mut self.written, unfolded(found));
            // Only a damaged block goes beyond the end.
            let fits = self.written.len().min(span.len() - at);
            span[at..at + fits].copy_from_slice(&self.written[..fits]);
            at += fits;
        }
    }
}

/// True if bytes are such integers, each in as few bytes as it takes.
pub fn are_varints(mut bytes: &[u8]) -> bool {
    let mut written = Vec::new();
    while !bytes.is_empty() {
        let Ok((value, rest)) = number(bytes) else { return false };
        written.clear();
        write_number(&mut written, value);
        if written.len() != bytes.len() - rest.len() {
            return false;
        }
        bytes = rest;
    }
    true
}

/// Numbers near zero become small, whatever their sign.
fn folded(value: u64) -> u64 {
    value << 1 ^ ((value as i64) >> 63) as u64
}

/// The reverse of [`folded`].
fn unfolded(value: u64) -> u64 {
    value >> 1 ^ (value & 1).wrapping_neg()
}
