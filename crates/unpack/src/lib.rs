//! Unpacks archives that `espalier pack` writes: the identical ONNX file, byte by byte.
//!
//! No standard library and no dependencies: this crate is all that a device needs. An archive holds, after a head with the file's
//! length and checksum, blocks of bytes that are coded with adaptive binary arithmetic coding. Block 0 has what is no weight (graph,
//! names, shapes) and a table of the spans of numbers that lie between; the other blocks have these spans. The models are
//! the same for encoder and decoder: both run [`code_bytes`] and [`Layout::code`].
#![no_std]

extern crate alloc;

mod archive;
mod bytes;
mod coder;
mod few;
mod floats;
mod integers;
mod layout;
mod mix;
mod repeats;
mod varints;
mod words;

pub use archive::{Archive, LARGEST, MAGIC, VERSION, checksum, unpack, write_number};
pub use bytes::code as code_bytes;
pub use coder::{Coder, Decoder, middle};
pub use layout::{Kind, Layout, Span};
pub use varints::are_varints;

use core::fmt;

/// What is wrong with an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It does not begin as an archive does.
    NotAnArchive,
    /// It has a version that this decoder does not know.
    Version(u8),
    /// It ends too early.
    Truncated,
    /// Its content contradicts itself, or its checksum is another.
    Damaged,
    /// There is no memory for the file that it says it holds.
    TooLarge,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::NotAnArchive => f.write_str("this is no archive that `espalier pack` wrote"),
            Fault::Version(version) if *version < VERSION => {
                write!(
                    f,
                    "the archive has version {version}, this decoder knows {VERSION}: unpack it with the espalier that wrote it, and pack it again"
                )
            }
            Fault::Version(version) => write!(f, "the archive has version {version}, this decoder knows {VERSION}: use a newer espalier"),
            Fault::Truncated => f.write_str("the archive ends too early"),
            Fault::Damaged => f.write_str("the archive is damaged"),
            Fault::TooLarge => f.write_str("the archive holds more than fits into memory"),
        }
    }
}

impl core::error::Error for Fault {}
