//! One row of a data set: what is stored, and what it decodes to.
use bytes::Bytes;
use std::collections::BTreeMap;
use tensor::Tensor;

/// A decoded image: 8 bits a channel, rows from the top, channels last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Rows of pixels.
    pub height: usize,
    /// Pixels in a row.
    pub width: usize,
    /// 1 (grey) or 3 (red, green, blue).
    pub channels: usize,
    /// `height * width * channels` values.
    pub pixels: Vec<u8>,
}

/// Decoded sound: one channel (several are averaged), full scale is -1..1.
#[derive(Clone, Debug, PartialEq)]
pub struct Audio {
    /// Samples in order of time.
    pub samples: Vec<f32>,
    /// Samples a second.
    pub rate: u32,
}

/// What a row holds.
#[derive(Clone, Debug)]
pub enum Content {
    /// The bytes of an image or sound file (PNG, JPEG, WAV), not decoded yet.
    Encoded(Bytes),
    /// Pixels.
    Image(Image),
    /// Sound.
    Audio(Audio),
    /// Named arrays, without a batch axis.
    Arrays(BTreeMap<String, Tensor>),
    /// All inputs of one run of a network, batch axis and all, with the labels of its samples, if there are any.
    Ready {
        /// Tensors by input.
        inputs: BTreeMap<String, Tensor>,
        /// int64 `[n]`.
        labels: Option<Tensor>,
    },
}

/// One row of a data set.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The network's input: an image, a sound or arrays.
    pub content: Content,
    /// The class, if the row has one.
    pub label: Option<i64>,
    /// Further targets, with as many elements along their first axis as the row has (boxes, characters, ...).
    pub targets: BTreeMap<String, Tensor>,
    /// Targets of one shape in all rows, without a batch axis (of [`Content::Ready`] with it): what a regression predicts.
    pub values: BTreeMap<String, Tensor>,
}

impl Sample {
    /// A row with a class (or none) and no further targets.
    pub fn new(content: Content, label: Option<i64>) -> Self {
        Sample { content, label, targets: BTreeMap::new(), values: BTreeMap::new() }
    }
}
