//! Resizing as Pillow does: separable, antialiased, in fixed point, so that the bytes are Pillow's own.
//!
//! Source: Pillow's `Resample.c`. The filter widens with the reduction; coefficients are rounded to 22 bits; the
//! horizontal pass comes first and is rounded to 8 bits before the vertical one.
use crate::Image;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The kernel by which pixels are weighed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    /// A triangle, two pixels wide.
    #[default]
    Bilinear,
    /// Keys' cubic with a = -0.5, four pixels wide.
    Bicubic,
}

impl Filter {
    fn support(self) -> f64 {
        match self {
            Filter::Bilinear => 1.0,
            Filter::Bicubic => 2.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        let x = x.abs();
        match self {
            Filter::Bilinear => (1.0 - x).max(0.0),
            Filter::Bicubic if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
            Filter::Bicubic if x < 2.0 => ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0,
            Filter::Bicubic => 0.0,
        }
    }
}

/// Fraction bits of a coefficient: 32 less 8 for the pixel and 2 for the sum.
const PRECISION: u32 = 22;

/// The input pixels one output pixel is made of: the first one, and a weight for each.
struct Window {
    first: usize,
    weights: Vec<i32>,
}

fn windows(from: usize, to: usize, filter: Filter) -> Vec<Window> {
    let scale = from as f64 / to as f64;
    let stretch = scale.max(1.0);
    let support = filter.support() * stretch;
    (0..to)
        .map(|i| {
            let center = (i as f64 + 0.5) * scale;
            let first = (center - support + 0.5).max(0.0) as usize;
            let end = ((center + support + 0.5) as usize).min(from);
            let raw: Vec<f64> = (first..end).map(|x| filter.weight((x as f64 - center + 0.5) / stretch)).collect();
            let sum: f64 = raw.iter().sum();
            let fixed = |w: f64| (w / sum * f64::from(1u32 << PRECISION) + 0.5f64.copysign(w)) as i32;
            Window { first, weights: raw.into_iter().map(fixed).collect() }
        })
        .collect()
}

/// The image at another size. Sizes of 0 give an empty image.
pub fn resize(image: &Image, height: usize, width: usize, filter: Filter) -> Image {
    let wide = if width == image.width { image.clone() } else { horizontal(image, &windows(image.width, width, filter)) };
    if height == image.height { wide } else { vertical(&wide, &windows(image.height, height, filter)) }
}

fn horizontal(image: &Image, windows: &[Window]) -> Image {
    let channels = image.channels;
    let mut pixels = Vec::with_capacity(image.height * windows.len() * channels);
    for row in image.pixels.chunks_exact((image.width * channels).max(1)) {
        for window in windows {
            for channel in 0..channels {
                let inputs = row[window.first * channels + channel..].iter().step_by(channels);
                pixels.push(weighted(window.weights.iter().zip(inputs)));
            }
        }
    }
    Image { height: image.height, width: windows.len(), channels, pixels }
}

fn vertical(image: &Image, windows: &[Window]) -> Image {
    let stride = image.width * image.channels;
    let mut pixels = Vec::with_capacity(windows.len() * stride);
    for window in windows {
        for column in 0..stride {
            let inputs = image.pixels[window.first * stride + column..].iter().step_by(stride);
            pixels.push(weighted(window.weights.iter().zip(inputs)));
        }
    }
    Image { height: windows.len(), width: image.width, channels: image.channels, pixels }
}

fn weighted<'a>(terms: impl Iterator<Item = (&'a i32, &'a u8)>) -> u8 {
    let sum = terms.fold(1i32 << (PRECISION - 1), |sum, (weight, pixel)| sum + weight * i32::from(*pixel));
    (sum >> PRECISION).clamp(0, 255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The image the constants below were made from: `(x*x*7 + y*31 + c*57 + x*y*3) % 256`, 9 rows of 7 pixels.
    fn pattern() -> Image {
        let (height, width, channels) = (9, 7, 3);
        let value = |i: usize| {
            let (y, x, c) = (i / (width * channels), i / channels % width, i % channels);
            ((x * x * 7 + y * 31 + c * 57 + x * y * 3) % 256) as u8
        };
        Image { height, width, channels, pixels: (0..height * width * channels).map(value).collect() }
    }

    // numpy: x, y, c = indices; PIL.Image.fromarray(a).resize((width, height), Resampling.X).ravel() of Pillow 13.0
    #[test]
    fn bilinear_smaller_is_pillows() {
        let expected = [
            37, 94, 151, 100, 151, 143, 148, 124, 106, 105, 161, 177, 153, 159, 106, 115, 139, 117, 178, 153, 66, 118, 103, 120, 142, 152,
            107, 165, 69, 108, 117, 123, 151, 134, 123, 135,
        ];
        assert_eq!(resize(&pattern(), 4, 3, Filter::Bilinear).pixels, expected);
    }

    #[test]
    fn bilinear_larger_is_pillows() {
        let expected = [
            0, 57, 114, 4, 61, 118, 12, 69, 126, 27, 84, 141, 51, 108, 165, 80, 137, 194, 115, 172, 216, 159, 216, 81, 210, 151, 68, 252,
            53, 110, 31, 88, 145, 36, 93, 150, 47, 104, 161, 64, 121, 178, 90, 147, 204, 121, 178, 146, 158, 203, 16, 205, 70, 63, 142, 58,
            115, 45, 102, 159, 62, 119, 176, 69, 126, 183, 82, 139, 196, 101, 158, 215, 129, 186, 76, 162, 219, 20, 189, 246, 59, 58, 115,
            108, 48, 105, 162, 94, 151, 208, 93, 150, 207, 102, 159, 216, 117, 174, 231, 138, 195, 252, 168, 225, 115, 203, 171, 61, 232,
            46, 103, 103, 96, 153, 96, 153, 94, 143, 200, 1, 124, 181, 238, 134, 191, 108, 151, 208, 9, 174, 231, 32, 207, 97, 65, 155, 45,
            102, 32, 89, 146, 84, 141, 198, 143, 200, 142, 192, 249, 50, 155, 212, 13, 167, 224, 25, 186, 179, 44, 211, 25, 69, 79, 47,
            104, 29, 86, 143, 75, 132, 176, 130, 187, 52, 190, 132, 48, 241, 42, 99, 186, 243, 44, 200, 116, 58, 221, 22, 79, 248, 49, 106,
            118, 85, 142, 70, 127, 184, 118, 175, 219, 175, 232, 97, 123, 180, 96, 34, 91, 148, 217, 18, 75, 232, 33, 90, 192, 57, 114, 42,
            86, 143, 67, 124, 181, 111, 168, 136, 161, 205, 19, 220, 85, 78, 170, 86, 143, 83, 140, 197, 248, 49, 106, 124, 66, 123, 34,
            91, 148, 66, 123, 180, 106, 163, 220, 153, 120, 177, 192, 5, 62, 73, 66, 123, 76, 133, 190, 132, 189, 246,
        ];
        assert_eq!(resize(&pattern(), 9, 10, Filter::Bilinear).pixels, expected);
    }

    #[test]
    fn bicubic_smaller_is_pillows() {
        let expected = [
            38, 99, 150, 145, 138, 120, 105, 159, 173, 127, 149, 101, 149, 166, 103, 134, 132, 111, 171, 104, 84, 123, 140, 125, 133, 85,
            138, 127, 121, 145,
        ];
        assert_eq!(resize(&pattern(), 5, 2, Filter::Bicubic).pixels, expected);
    }

    #[test]
    fn bicubic_larger_is_pillows() {
        let expected = [
            0, 56, 113, 2, 59, 116, 14, 71, 128, 34, 91, 147, 61, 118, 175, 98, 155, 238, 143, 225, 117, 205, 185, 41, 255, 43, 112, 21,
            78, 135, 25, 82, 139, 39, 96, 152, 60, 117, 181, 90, 147, 222, 127, 199, 92, 200, 127, 50, 188, 67, 90, 87, 87, 147, 47, 104,
            161, 54, 111, 168, 69, 126, 191, 93, 149, 184, 125, 182, 96, 175, 253, 28, 142, 125, 58, 83, 48, 142, 55, 133, 207, 72, 129,
            186, 81, 138, 202, 98, 154, 239, 124, 184, 198, 158, 225, 0, 228, 197, 49, 99, 120, 116, 27, 104, 147, 117, 173, 143, 98, 155,
            217, 108, 165, 200, 127, 188, 217, 156, 213, 195, 194, 213, 48, 222, 59, 88, 125, 68, 166, 83, 158, 128, 156, 217, 0, 123, 180,
            249, 135, 192, 75, 156, 227, 0, 190, 198, 43, 223, 24, 81, 58, 65, 127, 54, 125, 199, 137, 194, 169, 196, 253, 42, 148, 205,
            43, 161, 246, 28, 197, 158, 37, 178, 29, 71, 34, 53, 114, 47, 104, 177, 100, 177, 95, 181, 161, 41, 252, 61, 92, 174, 255, 20,
            187, 142, 43, 238, 45, 73, 217, 33, 105, 22, 89, 146, 75, 139, 231, 154, 228, 112, 159, 200, 45, 97, 53, 135, 199, 150, 57,
            234, 49, 73, 211, 23, 101, 131, 80, 138, 65, 122, 179, 113, 194, 147, 205, 187, 91, 176, 141, 100, 30, 111, 175, 228, 8, 84,
            215, 39, 102, 114, 75, 131, 25, 112, 173, 100, 157, 214, 158, 172, 40, 193, 85, 52, 163, 67, 152, 95, 162, 218, 255, 49, 106,
            86, 68, 125, 19, 99, 156, 82, 144, 201, 129, 186, 243, 202, 21, 87, 96, 31, 93, 45, 130, 186, 139, 196, 253,
        ];
        assert_eq!(resize(&pattern(), 11, 9, Filter::Bicubic).pixels, expected);
    }
}
