//! Images made without any data: "dead leaves", shapes of random size, colour and shading that hide one another.
//!
//! Their edges and their sizes are spread as those of photographs are (the density of a radius `r` is proportional to `1 / r^3`), so
//! the activations of a network trained on photographs come near the ranges that it has on its own data. Lee, Mumford and Huang,
//! "Occlusion models for natural images" (2001); for networks: Baradad et al., "Learning to see by looking at noise" (2021).
use crate::random::Draws;
use crate::{Content, DataError, Dataset, Image, Result, Sample};
use std::path::Path;

/// Salt that separates these draws from others of the same seed.
const SALT: u64 = 0xdead_1ea5;

/// Shapes that are drawn at most in an image; what they leave open takes the colour of the last one.
const SHAPES: u64 = 4000;

/// Draws that one shape takes.
const DRAWS: u64 = 16;

/// The smallest radius, in pixels, and the largest, as a share of the longer side.
const RADIUS: (f64, f64) = (1.5, 0.5);

/// Rows of images that are functions of a seed and their number.
#[derive(Clone, Debug)]
pub struct GeneratedImages {
    sides: [usize; 2],
    channels: usize,
    seed: u64,
    len: usize,
}

/// A shape that hides what lies behind it.
struct Leaf {
    centre: [f64; 2],
    radius: f64,
    /// Exponent of a superellipse: 2 is a disc or an ellipse, 8 nearly a rectangle.
    exponent: f64,
    /// Ratio of the sides, and the direction of the longer one.
    stretch: f64,
    turn: [f64; 2],
    colour: [f64; 3],
    /// Change of the brightness from the centre to the edge, along an axis.
    shade: [f64; 2],
}

impl GeneratedImages {
    /// `len` images of `sides` (height, width) pixels and 1 or 3 channels.
    ///
    /// # Errors
    /// [`DataError::Invalid`] for a side of 0, or another number of channels.
    pub fn new(sides: [usize; 2], channels: usize, seed: u64, len: usize) -> Result<Self> {
        if sides.contains(&0) || !matches!(channels, 1 | 3) {
            let [h, w] = sides;
            return Err(DataError::invalid(format!("generated images of {h} x {w} with {channels} channels: 1 or 3 channels are made")));
        }
        Ok(GeneratedImages { sides, channels, seed, len })
    }

    fn leaf(&self, draw: impl Fn(u64) -> f64, [brightness, contrast, colourful]: [f64; 3]) -> Leaf {
        let [height, width] = self.sides.map(|n| n as f64);
        let largest = (height.max(width) * RADIUS.1).max(RADIUS.0);
        // The inverse of the distribution function of a density 1 / r^3 between the two ends.
        let [near, far] = [RADIUS.0, largest].map(|r| r.powi(-2));
        let radius = (near + draw(0) * (far - near)).powf(-0.5);
        let angle = draw(1) * std::f64::consts::PI;
        let light = brightness + contrast * (draw(2) - 0.5);
        let tint = |i: u64| light + colourful * (draw(i) - 0.5);
        Leaf {
            centre: [draw(3) * height, draw(4) * width],
            radius,
            exponent: if draw(5) < 0.5 { 2.0 } else { 8.0 },
            stretch: 1.0 + 2.0 * draw(6) * draw(6),
            turn: [angle.cos(), angle.sin()],
            colour: [tint(7), tint(8), tint(9)],
            shade: [draw(10) - 0.5, draw(11) - 0.5].map(|s| s * contrast * 0.6),
        }
    }

    fn image(&self, row: usize) -> Image {
        let ([height, width], channels) = (self.sides, self.channels);
        let draws = Draws::new(SALT, self.seed, 0, 0).row(row);
        let draw = |i: u64| (draws.bits(i) >> 11) as f64 / (1u64 << 53) as f64;
        // An image has a brightness, a contrast and more or less colour of its own.
        let look = [60.0 + 130.0 * draw(0), 80.0 + 200.0 * draw(1), 20.0 + 120.0 * draw(2) * draw(2)];
        let mut light = vec![None; height * width];
        let mut open = light.len();
        for shape in 1..=SHAPES {
            let leaf = self.leaf(|i| draw(shape * DRAWS + i), look);
            let reach = leaf.radius * leaf.stretch;
            let span = |centre: f64, side: usize| ((centre - reach).max(0.0) as usize)..((centre + reach).ceil() as usize).min(side);
            for y in span(leaf.centre[0], height) {
                for x in span(leaf.centre[1], width) {
                    let pixel = &mut light[y * width + x];
                    if let (None, Some(colour)) = (&pixel, leaf.colour_at([y as f64 + 0.5, x as f64 + 0.5])) {
                        *pixel = Some(colour);
                        open -= 1;
                    }
                }
            }
            if open == 0 {
                break;
            }
        }
        let back = [look[0]; 3];
        let light: Vec<[f64; 3]> = light.into_iter().map(|p| p.unwrap_or(back)).collect();
        let mut pixels = Vec::with_capacity(height * width * channels);
        for y in 0..height {
            for x in 0..width {
                let colour = softened(&light, self.sides, [y, x]);
                match channels {
                    1 => pixels.push(colour.iter().sum::<f64>() / 3.0),
                    _ => pixels.extend(colour),
                }
            }
        }
        Image { height, width, channels, pixels: pixels.into_iter().map(|p| p.round().clamp(0.0, 255.0) as u8).collect() }
    }
}

impl Leaf {
    /// The colour of a point, if the shape covers it.
    fn colour_at(&self, [y, x]: [f64; 2]) -> Option<[f64; 3]> {
        let [dy, dx] = [y - self.centre[0], x - self.centre[1]];
        let along = (dx * self.turn[0] + dy * self.turn[1]) / (self.radius * self.stretch);
        let across = (dy * self.turn[0] - dx * self.turn[1]) / self.radius;
        let inside = along.abs().powf(self.exponent) + across.abs().powf(self.exponent) <= 1.0;
        let shade = self.shade[0] * along + self.shade[1] * across;
        inside.then(|| self.colour.map(|c| c + shade))
    }
}

/// The colour of a pixel with a quarter of its neighbours' mean, as a lens softens edges.
fn softened(light: &[[f64; 3]], [height, width]: [usize; 2], [y, x]: [usize; 2]) -> [f64; 3] {
    let near = [[y.saturating_sub(1), x], [(y + 1).min(height - 1), x], [y, x.saturating_sub(1)], [y, (x + 1).min(width - 1)]];
    let own = light[y * width + x];
    std::array::from_fn(|c| 0.75 * own[c] + near.iter().map(|[y, x]| light[y * width + x][c]).sum::<f64>() / 16.0)
}

impl Dataset for GeneratedImages {
    fn path(&self) -> &Path {
        Path::new("generated images")
    }

    fn len(&self) -> usize {
        self.len
    }

    fn class_names(&self) -> &[String] {
        &[]
    }

    fn read(&self, row: usize) -> Result<Sample> {
        if row >= self.len {
            return Err(DataError::invalid(format!("row {row} of {} generated images", self.len)));
        }
        Ok(Sample::new(Content::Image(self.image(row)), None))
    }

    fn labels(&self) -> Result<Vec<Option<i64>>> {
        Ok(vec![None; self.len])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(data: &GeneratedImages, row: usize) -> Image {
        match data.read(row).unwrap().content {
            Content::Image(image) => image,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn images_are_functions_of_the_seed_and_the_row() {
        let data = GeneratedImages::new([24, 32], 3, 1, 4).unwrap();
        assert_eq!(image(&data, 2), image(&data.clone(), 2));
        assert_ne!(image(&data, 2), image(&data, 3));
        assert_ne!(image(&data, 2), image(&GeneratedImages::new([24, 32], 3, 2, 4).unwrap(), 2));
        assert_eq!(image(&data, 0).pixels.len(), 24 * 32 * 3);
        assert!(data.read(4).is_err());
    }

    #[test]
    fn neighbouring_pixels_are_alike_and_distant_ones_are_not() {
        let data = GeneratedImages::new([64, 64], 1, 3, 64).unwrap();
        let (mut near, mut far) = (0.0, 0.0);
        for row in 0..data.len() {
            let p = image(&data, row).pixels;
            let difference = |a: usize, b: usize| f64::from(p[a].abs_diff(p[b]));
            near += (0..63 * 64).map(|i| difference(i, i + 64)).sum::<f64>() / (63.0 * 64.0);
            far += (0..32 * 64).map(|i| difference(i, i + 32 * 64)).sum::<f64>() / (32.0 * 64.0);
        }
        assert!(near * 3.0 < far, "{near} {far}");
        assert!(far / data.len() as f64 > 20.0, "{far}");
    }

    #[test]
    fn what_is_no_image_is_refused() {
        assert!(GeneratedImages::new([0, 8], 3, 1, 1).is_err());
        assert!(GeneratedImages::new([8, 8], 4, 1, 1).unwrap_err().to_string().contains("1 or 3 channels"));
    }
}
