//! What turns a decoded row into a network's input. It travels with the model, in its metadata.
use crate::resize::{Filter, resize};
use crate::{Audio, DataError, Image, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tensor::Tensor;

/// Key of a model's metadata under which its preprocessing stands, as JSON.
pub const METADATA_KEY: &str = "espalier.preprocess";

/// How an image or a sound becomes an input tensor, always in this order: channels, size, crop, then
/// `(value * scale - mean) / std` and the layout. Sound is only brought to its length; arrays are taken as they are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Preprocess {
    /// 1 (grey) or 3 (red, green, blue): images are converted; absent: images keep what they have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channels: Option<usize>,
    /// Size images are resized to, antialiased as Pillow does; absent: they keep their size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<Size>,
    /// The filter images are resized with.
    pub filter: Filter,
    /// Height and width that are cut from the middle; absent: nothing is cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crop: Option<[usize; 2]>,
    /// Order of the axes of an input.
    pub layout: Layout,
    /// What a pixel's value, 0..255, is multiplied by first.
    pub scale: f64,
    /// What is subtracted then, for each channel (or one value for all; absent: nothing).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mean: Vec<f64>,
    /// What is divided by last, for each channel (or one value for all; absent: nothing).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub std: Vec<f64>,
    /// Samples a sound is cut to, or filled up to with silence; absent: sounds keep their length.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audio_length: Option<usize>,
    /// Samples a second that a sound must have; absent: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audio_rate: Option<u32>,
}

impl Default for Preprocess {
    fn default() -> Self {
        Preprocess {
            channels: None,
            size: None,
            filter: Filter::default(),
            crop: None,
            layout: Layout::default(),
            scale: 1.0 / 255.0,
            mean: vec![],
            std: vec![],
            audio_length: None,
            audio_rate: None,
        }
    }
}

/// The size an image is resized to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Size {
    /// Pixels of the shorter side; the other follows in proportion.
    ShorterSide(usize),
    /// Height and width.
    Exact([usize; 2]),
}

/// Order of the axes of an image input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// Channels, height, width.
    #[default]
    Nchw,
    /// Height, width, channels.
    Nhwc,
}

impl Preprocess {
    /// Checks the settings against each other.
    ///
    /// # Errors
    /// [`DataError::Invalid`] naming the setting and what it may be.
    pub fn validate(&self) -> Result<()> {
        let fault = |what: String| Err(DataError::invalid(format!("preprocess: {what}")));
        if !matches!(self.channels, None | Some(1 | 3)) {
            return fault(format!("channels = {:?}: 1 or 3 is needed", self.channels.unwrap_or_default()));
        }
        let empty = match self.size {
            None => false,
            Some(Size::ShorterSide(side)) => side == 0,
            Some(Size::Exact(sides)) => sides.contains(&0),
        };
        if empty || self.crop.is_some_and(|sides| sides.contains(&0)) {
            return fault("size and crop must be at least 1".into());
        }
        if let Some(divisor) = self.std.iter().find(|s| !(s.is_finite() && **s > 0.0)) {
            return fault(format!("std = {divisor}: a positive number is needed"));
        }
        if !self.scale.is_finite() || self.mean.iter().any(|m| !m.is_finite()) {
            return fault("scale and mean must be finite".into());
        }
        let counts = [("mean", self.mean.len()), ("std", self.std.len())];
        if let Some((name, count)) = counts.iter().find(|(_, n)| *n > 1 && self.channels.is_some_and(|c| c != *n)) {
            return fault(format!("{name} has {count} values for {} channels", self.channels.unwrap_or_default()));
        }
        Ok(())
    }

    /// An image as an input without a batch axis: `[c, h, w]` or `[h, w, c]`, f32.
    ///
    /// # Errors
    /// [`DataError::Invalid`] if the settings are at fault or do not fit the image (a crop larger than it).
    pub fn image(&self, image: Image) -> Result<Tensor> {
        self.validate()?;
        let image = self.shape(image).map_err(DataError::invalid)?;
        let table = self.table(image.channels).map_err(DataError::invalid)?;
        let mut out = vec![0.0; image.pixels.len()];
        self.write(&image, &table, View::default(), &mut out);
        Ok(Tensor::new(out, self.dims(&image).to_vec())?)
    }

    /// Channels, size and crop.
    pub(crate) fn shape(&self, image: Image) -> Result<Image, String> {
        let mut image = match self.channels {
            Some(channels) if channels != image.channels => convert(&image, channels),
            _ => image,
        };
        if let Some(size) = self.size {
            let (height, width) = match size {
                Size::Exact([height, width]) => (height, width),
                Size::ShorterSide(side) => shorter_side(&image, side),
            };
            image = resize(&image, height, width, self.filter);
        }
        match self.crop {
            Some([height, width]) => crop(&image, height, width),
            None => Ok(image),
        }
    }

    /// The value that each of the 256 values of a pixel becomes, for each channel.
    pub(crate) fn table(&self, channels: usize) -> Result<Vec<[f32; 256]>, String> {
        let pick = |name: &str, list: &[f64], none: f64, channel: usize| match list {
            [] => Ok(none),
            [one] => Ok(*one),
            many if many.len() == channels => Ok(many[channel]),
            many => Err(format!("preprocess.{name} has {} values, the image {channels} channels: set preprocess.channels", many.len())),
        };
        (0..channels)
            .map(|channel| {
                let (mean, std) = (pick("mean", &self.mean, 0.0, channel)?, pick("std", &self.std, 1.0, channel)?);
                Ok(std::array::from_fn(|value| ((value as f64 * self.scale - mean) / std) as f32))
            })
            .collect()
    }

    /// Shape of an image's input, without the batch axis.
    pub(crate) fn dims(&self, image: &Image) -> [usize; 3] {
        match self.layout {
            Layout::Nchw => [image.channels, image.height, image.width],
            Layout::Nhwc => [image.height, image.width, image.channels],
        }
    }

    /// Normalises an image into `out`, shifted and mirrored as `view` says, in one pass.
    pub(crate) fn write(&self, image: &Image, table: &[[f32; 256]], view: View, out: &mut [f32]) {
        let (height, width, channels) = (image.height, image.width, image.channels);
        for y in 0..height {
            let source_y = y.wrapping_add_signed(view.down);
            for x in 0..width {
                let across = if view.mirror { width - 1 - x } else { x };
                let source_x = across.wrapping_add_signed(view.right);
                let inside = source_y < height && source_x < width;
                let at = if inside { (source_y * width + source_x) * channels } else { 0 };
                for (channel, values) in table.iter().enumerate() {
                    let value = if inside { image.pixels[at + channel] } else { 0 };
                    let to = match self.layout {
                        Layout::Nchw => (channel * height + y) * width + x,
                        Layout::Nhwc => (y * width + x) * channels + channel,
                    };
                    out[to] = values[usize::from(value)];
                }
            }
        }
    }

    /// A sound at the wanted length.
    pub(crate) fn audio(&self, audio: Audio) -> Result<Tensor, String> {
        if let Some(rate) = self.audio_rate.filter(|rate| *rate != audio.rate) {
            return Err(format!("{} samples a second, preprocess.audio_rate asks for {rate}", audio.rate));
        }
        let mut samples = audio.samples;
        if let Some(length) = self.audio_length {
            samples.resize(length, 0.0);
        }
        Ok(Tensor::vector(samples))
    }
}

/// Where an augmented image is read from: shifted (what lies outside is black), then mirrored left to right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) down: isize,
    pub(crate) right: isize,
    pub(crate) mirror: bool,
}

/// Grey to colour by repetition, colour to grey by ITU-R 601-2 luma in Pillow's fixed point.
fn convert(image: &Image, channels: usize) -> Image {
    let pixels = match channels {
        1 => image
            .pixels
            .as_chunks::<3>()
            .0
            .iter()
            .map(|[r, g, b]| ((u32::from(*r) * 19595 + u32::from(*g) * 38470 + u32::from(*b) * 7471 + 0x8000) >> 16) as u8)
            .collect(),
        _ => image.pixels.iter().flat_map(|grey| [*grey; 3]).collect(),
    };
    Image { channels, pixels, ..*image }
}

/// torchvision's rule: the longer side is rounded down.
fn shorter_side(image: &Image, side: usize) -> (usize, usize) {
    let (short, long) = (image.height.min(image.width).max(1), image.height.max(image.width));
    let longer = side * long / short;
    if image.height <= image.width { (side, longer) } else { (longer, side) }
}

/// The middle of an image; where the margins cannot be equal, torchvision's rounding (half to even) decides.
fn crop(image: &Image, height: usize, width: usize) -> Result<Image, String> {
    if height > image.height || width > image.width {
        return Err(format!("preprocess.crop {height} x {width} is larger than the image, {} x {}", image.height, image.width));
    }
    let margin = |have: usize, want: usize| ((have - want) as f64 / 2.0).round_ties_even() as usize;
    let (top, left) = (margin(image.height, height), margin(image.width, width));
    let rows = image.pixels.chunks_exact(image.width * image.channels).skip(top).take(height);
    let pixels = rows.flat_map(|row| &row[left * image.channels..(left + width) * image.channels]).copied().collect();
    Ok(Image { height, width, channels: image.channels, pixels })
}
