//! How a decoded row becomes a network's input. The settings travel with the model, in its metadata.
use crate::resize::{Filter, resize};
use crate::{Audio, Augment, DataError, Dataset, Image, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tensor::{DType, Tensor};

/// Key of the preprocessing in a model's metadata; its value is JSON.
pub const METADATA_KEY: &str = "espalier.preprocess";

/// How an image or a sound becomes an input tensor, always in this order: channels, size, crop, then
/// `(value * scale - mean) / std` and the layout. Sound is only brought to its length; arrays are taken as they are, unless
/// `arrays` is set.
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
    /// Factor on a pixel's value, 0..255; applied first.
    pub scale: f64,
    /// Mean that is subtracted after `scale`, for each channel (or one value for all; absent: nothing).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mean: Vec<f64>,
    /// Standard deviation that is divided by last, for each channel (or one value for all; absent: nothing).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub std: Vec<f64>,
    /// Samples a sound is cut to, or filled up to with silence; absent: sounds keep their length.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audio_length: Option<usize>,
    /// Samples a second that a sound must have; absent: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audio_rate: Option<u32>,
    /// Applies `scale`, `mean` and `std` to arrays of floats too, as npz files hold them, and augmentation where a row has three
    /// axes in the order of `layout`. Without it they are taken as they are.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub arrays: bool,
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
            arrays: false,
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

    /// Mean and standard deviation of each channel.
    fn numbers(&self, channels: usize) -> Result<Vec<(f64, f64)>, String> {
        let pick = |name: &str, list: &[f64], none: f64, channel: usize| match list {
            [] => Ok(none),
            [one] => Ok(*one),
            many if many.len() == channels => Ok(many[channel]),
            many => Err(format!("preprocess.{name} has {} values, the image {channels} channels: set preprocess.channels", many.len())),
        };
        (0..channels).map(|channel| Ok((pick("mean", &self.mean, 0.0, channel)?, pick("std", &self.std, 1.0, channel)?))).collect()
    }

    /// The value that each of the 256 values of a pixel becomes, for each channel.
    pub(crate) fn table(&self, channels: usize) -> Result<Vec<[f32; 256]>, String> {
        let of = |(mean, std): (f64, f64)| std::array::from_fn(|value| ((value as f64 * self.scale - mean) / std) as f32);
        Ok(self.numbers(channels)?.into_iter().map(of).collect())
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
            for x in 0..width {
                let at = view.source(y, x, height, width).map(|(y, x)| (y * width + x) * channels);
                for (channel, values) in table.iter().enumerate() {
                    let value = at.map_or(0, |at| image.pixels[at + channel]);
                    let to = match self.layout {
                        Layout::Nchw => (channel * height + y) * width + x,
                        Layout::Nhwc => (y * width + x) * channels + channel,
                    };
                    out[to] = values[usize::from(value)];
                }
            }
        }
    }

    /// An array of floats, normalised where `arrays` is set. A shift fills up with 0.
    pub(crate) fn array(&self, array: Tensor, view: View) -> Result<Tensor, String> {
        if !self.arrays {
            return Ok(array);
        }
        if let Some(name) = [("size", self.size.is_some()), ("crop", self.crop.is_some()), ("channels", self.channels.is_some())]
            .iter()
            .find_map(|(name, set)| set.then_some(name))
        {
            return Err(format!(
                "preprocess.{name} cannot be applied to an array: leave it out, or give uint8 images of shape [n, h, w, c]"
            ));
        }
        let values = match array.dtype() {
            DType::F32 => array.as_slice::<f32>().map_err(|e| e.to_string())?,
            other => return Err(format!("preprocess.arrays is for float32, and the array is {other}")),
        };
        let shape = array.shape().to_vec();
        let dims = match (shape.as_slice(), self.layout) {
            ([c, h, w], Layout::Nchw) | ([h, w, c], Layout::Nhwc) => Some([*c, *h, *w]),
            _ => None,
        };
        if dims.is_none() && (view != View::default() || self.mean.len() > 1 || self.std.len() > 1) {
            return Err(format!("a mean and std for each channel, and augmentation, need rows of three axes, and this one is {shape:?}"));
        }
        let [channels, height, width] = dims.unwrap_or([1, 1, values.len()]);
        let numbers = self.numbers(channels)?;
        let mut out = vec![0f32; values.len()];
        for y in 0..height {
            for x in 0..width {
                let source = view.source(y, x, height, width);
                for (channel, (mean, std)) in numbers.iter().enumerate() {
                    let at = |y: usize, x: usize| match self.layout {
                        Layout::Nchw => (channel * height + y) * width + x,
                        Layout::Nhwc => (y * width + x) * channels + channel,
                    };
                    let value = source.map_or(0.0, |(y, x)| values[at(y, x)]);
                    out[at(y, x)] = ((f64::from(value) * self.scale - mean) / std) as f32;
                }
            }
        }
        Tensor::new(out, shape).map_err(|e| e.to_string())
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

/// Refuses image settings, given by the user, that have no effect on arrays.
///
/// # Errors
/// [`DataError::Invalid`], with what to do.
pub fn check_heeded(dataset: &dyn Dataset, given: Option<&Preprocess>, augment: &Augment) -> Result<()> {
    let fault = |what: String| Err(DataError::invalid(format!("{}: {what}", dataset.path().display())));
    let applied = given.is_some_and(|p| p.arrays);
    if !dataset.holds_arrays() || (given.is_none() && *augment == Augment::default()) {
        return Ok(());
    }
    if dataset.is_ready() {
        return fault("the inputs of whole runs are taken as they are: leave preprocessing and augmentation out".into());
    }
    if applied {
        return Ok(());
    }
    let what = if given.is_some() { "preprocessing is given" } else { "augmentation is asked for" };
    fault(format!(
        "{what}, and the data are arrays, not images: with arrays = true (--arrays) scale, mean, std and augmentation are applied to them, \
         without preprocessing and augmentation they are taken as they are"
    ))
}

/// Where an augmented image is read from: shifted (black outside the image), then mirrored left to right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) down: isize,
    pub(crate) right: isize,
    pub(crate) mirror: bool,
}

impl View {
    /// Where the pixel at `y`, `x` is read from; `None` outside.
    #[inline(always)]
    fn source(&self, y: usize, x: usize, height: usize, width: usize) -> Option<(usize, usize)> {
        let across = if self.mirror { width - 1 - x } else { x };
        let (y, x) = (y.wrapping_add_signed(self.down), across.wrapping_add_signed(self.right));
        (y < height && x < width).then_some((y, x))
    }
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

/// The centre of an image; where the margins cannot be equal, torchvision's rounding (half to even) decides.
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
