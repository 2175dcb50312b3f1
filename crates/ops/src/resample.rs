//! Positions and weights of the samples of a resized axis.
use crate::OpError;
use graph::Node;

/// How an output coordinate is mapped to the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transform {
    HalfPixel,
    HalfPixelSymmetric,
    PytorchHalfPixel,
    TfHalfPixelForNearest,
    AlignCorners,
    Asymmetric,
    TfCropAndResize,
}

impl Transform {
    pub(crate) fn named(node: &Node, name: &str) -> Result<Transform, OpError> {
        Ok(match name {
            "half_pixel" => Transform::HalfPixel,
            "half_pixel_symmetric" => Transform::HalfPixelSymmetric,
            "pytorch_half_pixel" => Transform::PytorchHalfPixel,
            "tf_half_pixel_for_nn" => Transform::TfHalfPixelForNearest,
            "align_corners" => Transform::AlignCorners,
            "asymmetric" => Transform::Asymmetric,
            "tf_crop_and_resize" => Transform::TfCropAndResize,
            _ => return Err(OpError::unsupported(node, format!("coordinate_transformation_mode = '{name}'"))),
        })
    }
}

/// Which neighbour counts as the nearest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nearest {
    RoundPreferFloor,
    RoundPreferCeil,
    Floor,
    Ceil,
    /// Truncation, or the ceiling where the axis shrinks: as ONNX Runtime computes Upsample and Resize of operator set 10.
    Simple,
}

impl Nearest {
    pub(crate) fn named(node: &Node, name: &str) -> Result<Nearest, OpError> {
        Ok(match name {
            "round_prefer_floor" => Nearest::RoundPreferFloor,
            "round_prefer_ceil" => Nearest::RoundPreferCeil,
            "floor" => Nearest::Floor,
            "ceil" => Nearest::Ceil,
            _ => return Err(OpError::unsupported(node, format!("nearest_mode = '{name}'"))),
        })
    }

    fn pick(self, x: f64, scale: f64) -> f64 {
        match self {
            Nearest::RoundPreferFloor => (x - 0.5).ceil(),
            Nearest::RoundPreferCeil => (x + 0.5).floor(),
            Nearest::Floor => x.floor(),
            Nearest::Ceil => x.ceil(),
            Nearest::Simple if scale < 1.0 => x.ceil(),
            Nearest::Simple => x.trunc(),
        }
    }
}

/// The weights of the neighbouring samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Filter {
    Nearest(Nearest),
    /// A triangle of width 2.
    Linear,
    /// Keys' cubic with coefficient `a`, width 4.
    Cubic(f64),
}

impl Filter {
    pub(crate) fn radius(self) -> f64 {
        match self {
            Filter::Nearest(_) => 0.0,
            Filter::Linear => 1.0,
            Filter::Cubic(_) => 2.0,
        }
    }

    pub(crate) fn weight(self, distance: f64) -> f64 {
        let d = distance.abs();
        match self {
            Filter::Nearest(_) => 1.0,
            Filter::Linear => (1.0 - d).max(0.0),
            Filter::Cubic(a) if d <= 1.0 => ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0,
            Filter::Cubic(a) if d < 2.0 => ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a,
            Filter::Cubic(_) => 0.0,
        }
    }

    /// Derivative of [`Filter::weight`] by the position that is read, for a sample `distance` ahead of it.
    pub(crate) fn slope(self, distance: f64) -> f64 {
        let d = distance.abs();
        let by_distance = match self {
            Filter::Linear if d <= 1.0 => -1.0,
            Filter::Cubic(a) if d <= 1.0 => (3.0 * (a + 2.0) * d - 2.0 * (a + 3.0)) * d,
            Filter::Cubic(a) if d < 2.0 => (3.0 * a * d - 10.0 * a) * d + 8.0 * a,
            _ => 0.0,
        };
        if distance > 0.0 { -by_distance } else { by_distance }
    }
}

/// Positions are clamped to this distance from the input: f64 counts whole numbers up to here.
const FARTHEST: f64 = 9_007_199_254_740_992.0;

/// One axis to resize.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Axis {
    pub(crate) input: usize,
    pub(crate) output: usize,
    pub(crate) scale: f64,
    /// Start and end of the region, as fractions of the axis.
    pub(crate) region: (f64, f64),
}

impl Axis {
    fn source(&self, y: usize, transform: Transform) -> f64 {
        let (n, m, y) = (self.input as f64, self.output as f64, y as f64);
        match transform {
            Transform::HalfPixel => (y + 0.5) / self.scale - 0.5,
            Transform::HalfPixelSymmetric => {
                let wanted = self.scale * n;
                n / 2.0 * (1.0 - m / wanted) + (y + 0.5) / self.scale - 0.5
            }
            Transform::PytorchHalfPixel if self.output > 1 => (y + 0.5) / self.scale - 0.5,
            Transform::PytorchHalfPixel => 0.0,
            Transform::TfHalfPixelForNearest => (y + 0.5) / self.scale,
            Transform::AlignCorners if self.output > 1 => y * (n - 1.0) / (m - 1.0),
            Transform::AlignCorners => 0.0,
            Transform::Asymmetric => y / self.scale,
            Transform::TfCropAndResize => {
                let (start, end) = self.region;
                match self.output > 1 {
                    true => start * (n - 1.0) + y * (end - start) * (n - 1.0) / (m - 1.0),
                    false => 0.5 * (start + end) * (n - 1.0),
                }
            }
        }
    }

    /// For each output index the input indices and weights; and the outputs outside the input, which only `TfCropAndResize` fills
    /// with a value.
    pub(crate) fn samples(&self, filter: Filter, transform: Transform, antialias: bool, exclude_outside: bool) -> Samples {
        let last = self.input.saturating_sub(1) as i64;
        let mut samples = Samples { taps: vec![], ends: Vec::with_capacity(self.output), outside: vec![] };
        for y in 0..self.output {
            let x = self.source(y, transform);
            samples.outside.push(transform == Transform::TfCropAndResize && !(0.0..=last as f64).contains(&x));
            if let Filter::Nearest(nearest) = filter {
                samples.taps.push(((nearest.pick(x, self.scale) as i64).clamp(0, last) as usize, 1.0));
                samples.ends.push(samples.taps.len());
                continue;
            }
            // A filter for a smaller output is stretched, so that it covers every input pixel.
            let stretch = if antialias { self.scale.min(1.0) } else { 1.0 };
            let reach = filter.radius() / stretch;
            // Far outside the input every neighbour is the edge.
            let x = x.clamp(-FARTHEST, FARTHEST);
            let (from, to) = ((x - reach).floor() as i64 + 1, (x + reach).ceil() as i64);
            let mut taps: Vec<(i64, f64)> = (from..to.max(from + 1)).map(|i| (i, filter.weight((i as f64 - x) * stretch))).collect();
            if exclude_outside {
                taps.retain(|(i, _)| (0..=last).contains(i));
            }
            if exclude_outside || antialias {
                let sum: f64 = taps.iter().map(|(_, w)| w).sum();
                taps.iter_mut().for_each(|(_, w)| *w /= sum);
            }
            samples.taps.extend(taps.into_iter().map(|(i, w)| (i.clamp(0, last) as usize, w)));
            samples.ends.push(samples.taps.len());
        }
        samples
    }
}

/// The samples of each output of an axis.
pub(crate) struct Samples {
    /// Input indices and weights, output by output.
    taps: Vec<(usize, f64)>,
    /// End of each output's samples.
    ends: Vec<usize>,
    pub(crate) outside: Vec<bool>,
}

impl Samples {
    /// Input indices and weights by output.
    pub(crate) fn taps(&self) -> impl Iterator<Item = &[(usize, f64)]> {
        let begins = std::iter::once(0).chain(self.ends.iter().copied());
        begins.zip(&self.ends).map(|(begin, end)| &self.taps[begin..*end])
    }
}
