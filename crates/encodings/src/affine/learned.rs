//! Forms in which a grid is learned: by the bound at which it clips, and with an offset beside its scale. The stored form, scale and zero
//! point, follows from either.
use super::AffineSettings;
use crate::{Parameters, Result};
use graph::Encoding;
use tensor::{DType, Tensor};

/// The bound at which values are clipped, in place of the scale: `scale = clip / (qmax - qmin)`, with zero at `qmin`.
pub const CLIP: &str = "clip";

/// The real number that `qmin` stands for, in place of the zero point: `zero_point = round(qmin - offset / scale)`.
pub(super) const OFFSET: &str = "offset";

/// Names of the parameters that are learned.
pub(super) fn parameters(parameters: &Parameters) -> &'static [&'static str] {
    match (parameters.contains_key(CLIP), parameters.contains_key(OFFSET)) {
        (true, _) => &[CLIP],
        (false, true) => &["scale", OFFSET],
        (false, false) => &["scale"],
    }
}

/// An encoding with its clipping bound in place of its scale, as PACT learns it (Choi et al. 2018, arXiv:1805.06085): `None` unless the
/// grid has one scale and begins at zero, as activations that are never negative have it.
///
/// # Errors
/// If the encoding is an affine one that is not well formed.
pub fn with_clip(encoding: &Encoding) -> Result<Option<Encoding>> {
    let Some((settings, scale, zero_point)) = of_activation(encoding)? else { return Ok(None) };
    if zero_point != settings.qmin() {
        return Ok(None);
    }
    let mut out = encoding.clone();
    out.parameters.remove("scale");
    out.parameters.insert(CLIP.into(), scale.mul_scalar(span(&settings))?);
    Ok(Some(out))
}

/// An encoding with its offset in place of its zero point, as LSQ+ learns it (Bhalgat et al. 2020, arXiv:2004.09576): `None` unless the
/// grid has one scale, may lie anywhere, and holds negative numbers. A grid that begins at zero may stand for a Relu, and stays.
///
/// # Errors
/// If the encoding is an affine one that is not well formed.
pub fn with_offset(encoding: &Encoding) -> Result<Option<Encoding>> {
    let Some((settings, scale, zero_point)) = of_activation(encoding)? else { return Ok(None) };
    if settings.symmetric || zero_point == settings.qmin() {
        return Ok(None);
    }
    let mut out = encoding.clone();
    out.parameters.remove("zero_point");
    out.parameters.insert(OFFSET.into(), scale.mul_scalar((settings.qmin() - zero_point) as f64)?);
    Ok(Some(out))
}

/// Settings, scale and zero point of a grid with one scale of its own.
fn of_activation(encoding: &Encoding) -> Result<Option<(AffineSettings, Tensor, i64)>> {
    if encoding.kind != super::KIND {
        return Ok(None);
    }
    let grid = super::Grid::of(encoding)?;
    let (settings, scale) = (*grid.settings(), grid.scale().clone());
    let plain =
        scale.len() == 1 && settings.axis.is_none() && !settings.is_bias() && !encoding.parameters.contains_key(graph::FOLDED_SCALE);
    let zero_point = grid.zero_point()?.to_i64_vec()?;
    Ok(zero_point.first().filter(|_| plain).map(|zero_point| (settings, scale, *zero_point)))
}

/// Scale and zero point, where the grid is in another form.
pub(super) fn settle(settings: &AffineSettings, parameters: &Parameters) -> Result<Option<Parameters>> {
    if !parameters.contains_key(CLIP) && !parameters.contains_key(OFFSET) {
        return Ok(None);
    }
    let grid = super::Grid::new(*settings, parameters)?;
    let mut out = parameters.clone();
    out.remove(CLIP);
    out.remove(OFFSET);
    out.insert("scale".into(), grid.scale().detach());
    out.insert("zero_point".into(), grid.zero_point()?.cast(DType::F32)?);
    Ok(Some(out))
}

fn span(settings: &AffineSettings) -> f64 {
    (settings.qmax() - settings.qmin()) as f64
}

pub(super) fn scale_of_clip(settings: &AffineSettings, clip: &Tensor) -> Result<Tensor> {
    Ok(clip.div(&clip.scalar_like(span(settings))?)?)
}

/// `round(qmin - offset / scale)`, at most at the ends of the grid; the gradient passes straight through the rounding.
pub(super) fn zero_point_of_offset(settings: &AffineSettings, offset: &Tensor, scale: &Tensor) -> Result<Tensor> {
    let exact = offset.div(scale)?.neg()?.add_scalar(settings.qmin() as f64)?;
    let exact = exact.clip(Some(settings.qmin() as f64), Some(settings.qmax() as f64))?;
    // A number and its distance to the nearest integer add up to that integer.
    Ok(exact.add(&exact.detach().round()?.sub(&exact.detach())?)?)
}

/// The smaller of a value and the bound. The gradient reaches the value below the bound, and the bound from it on: equation 3 of Choi et
/// al. 2018.
pub(super) fn clipped(value: &Tensor, clip: &Tensor) -> Result<Tensor> {
    Ok(Tensor::where_(&value.detach().greater_or_equal(&clip.detach())?, clip, value)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Codec;
    use proptest::prelude::*;
    use tensor::{Activation, gradcheck, random};

    fn grid(bits: u32, scale: f32, zero_point: f32) -> Encoding {
        AffineSettings::activation(bits).encoding(Tensor::scalar(scale), Tensor::scalar(zero_point))
    }

    fn settled(encoding: &Encoding) -> Encoding {
        let mut encoding = encoding.clone();
        crate::settle(&mut encoding).unwrap();
        encoding
    }

    #[test]
    fn only_grids_that_fit_are_put_into_another_form() {
        let (relu, both) = (grid(4, 0.5, 0.0), grid(4, 0.5, 6.0));
        assert_eq!(with_clip(&relu).unwrap().unwrap().parameters[CLIP], Tensor::scalar(7.5f32));
        assert_eq!(with_offset(&both).unwrap().unwrap().parameters[OFFSET], Tensor::scalar(-3f32));
        assert_eq!((with_clip(&both).unwrap(), with_offset(&relu).unwrap()), (None, None));
        let signed = AffineSettings { signed: true, ..AffineSettings::activation(4) };
        let from_the_least = signed.encoding(Tensor::scalar(0.5f32), Tensor::scalar(-8f32));
        assert_eq!(with_clip(&from_the_least).unwrap().unwrap().parameters[CLIP], Tensor::scalar(7.5f32));
        let weight = AffineSettings::weight(4, Some(0)).encoding(Tensor::vector(vec![1f32; 3]), Tensor::vector(vec![0f32; 3]));
        let symmetric = AffineSettings::weight(4, None).encoding(Tensor::scalar(1f32), Tensor::scalar(0f32));
        for other in [weight, symmetric] {
            assert_eq!((with_clip(&other).unwrap(), with_offset(&other).unwrap()), (None, None));
        }
    }

    proptest! {
        #[test]
        fn every_form_simulates_what_it_stores(bits in 2u32..9, scale in 0.01f32..2.0, at in 0.0f32..1.0, seed: u64, relu: bool) {
            let settings = AffineSettings::activation(bits);
            let zero_point = (1.0 + at * (settings.qmax() - 1) as f32).floor();
            let x = random::uniform(seed, &[64], -300.0 * scale, 300.0 * scale).unwrap();
            let activation = if relu { Activation::Relu } else { Activation::None };
            for form in [with_clip(&grid(bits, scale, 0.0)), with_offset(&grid(bits, scale, zero_point))] {
                let form = form.unwrap().unwrap();
                let stored = settled(&form);
                prop_assert_eq!(stored.parameters.keys().collect::<Vec<_>>(), ["scale", "zero_point"]);
                let (old, new) = (scale, stored.parameters["scale"].item::<f32>().unwrap());
                prop_assert!((old - new).abs() <= old * f32::EPSILON);
                let got = settings.simulate_activated(&x, activation, &form.parameters).unwrap();
                prop_assert_eq!(got, settings.simulate_activated(&x, activation, &stored.parameters).unwrap());
            }
            let offset = settled(&with_offset(&grid(bits, scale, zero_point)).unwrap().unwrap());
            prop_assert_eq!(offset.parameters["zero_point"].item::<f32>().unwrap(), zero_point);
        }

        /// Whatever a step does to an offset, the zero point is an integer of the grid.
        #[test]
        fn a_zero_point_is_an_integer_of_its_grid(offset in -100f32..100.0, scale in 0.001f32..10.0, bits in 2u32..9) {
            let settings = AffineSettings::activation(bits);
            let z = zero_point_of_offset(&settings, &Tensor::scalar(offset), &Tensor::scalar(scale)).unwrap().item::<f32>().unwrap();
            prop_assert!(z.fract() == 0.0 && (0.0..=settings.qmax() as f32).contains(&z));
            prop_assert_eq!(z, (-offset / scale).clamp(0.0, settings.qmax() as f32).round_ties_even());
        }
    }

    #[test]
    fn clipping_has_the_gradients_of_pact() {
        // Away from the bound the function is differentiable.
        let x = Tensor::new(vec![-1.0f64, 0.2, 0.9, 1.4, 3.0], [5]).unwrap();
        gradcheck::check(&[x, Tensor::scalar(1.2f64)], |t| Ok(clipped(&t[0], &t[1]).unwrap())).unwrap();
        // With the grid behind it, equation 3: 1 for each x >= a, also at the bound itself, and nothing from the rounding below.
        let encoding = with_clip(&grid(2, 0.5, 0.0)).unwrap().unwrap();
        let x = Tensor::vector(vec![0.1f32, 0.6, 1.3, 1.5, 2.0, 9.0]).tracked().unwrap();
        let bound = encoding.parameters[CLIP].tracked().unwrap();
        let parameters = Parameters::from([(CLIP.to_string(), bound.clone()), ("zero_point".to_string(), Tensor::scalar(0f32))]);
        let y = AffineSettings::activation(2).simulate(&x, &parameters).unwrap();
        assert_eq!(y.to_f32_vec().unwrap(), [0.0, 0.5, 1.5, 1.5, 1.5, 1.5]);
        let dy = Tensor::vector(vec![1f32, 2.0, 4.0, 8.0, 16.0, 32.0]);
        let gradients = y.backward_from(dy).unwrap();
        assert_eq!(gradients.get(&bound).unwrap().item::<f32>().unwrap(), 8.0 + 16.0 + 32.0);
        assert_eq!(gradients.get(&x).unwrap().to_f32_vec().unwrap(), [1.0, 2.0, 4.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn an_offset_has_the_gradients_of_lsq_plus() {
        // b = -2 exactly on the grid: y = (q - 4) / 2, from -2 to 1.5 in 3 bits.
        let encoding = with_offset(&grid(3, 0.5, 4.0)).unwrap().unwrap();
        let x: Vec<f32> = vec![-5.0, -1.9, -0.3, 0.0, 0.7, 1.4, 4.0];
        let (s, b, dy) = (0.5f32, -2f32, [1f32, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]);
        let leaves = [Tensor::vector(x.clone()), encoding.parameters["scale"].clone(), encoding.parameters[OFFSET].clone()];
        let leaves = leaves.map(|t| t.tracked().unwrap());
        let parameters = Parameters::from([("scale".to_string(), leaves[1].clone()), (OFFSET.to_string(), leaves[2].clone())]);
        let y = AffineSettings::activation(3).simulate(&leaves[0], &parameters).unwrap();
        let gradients = y.backward_from(Tensor::vector(dy.to_vec())).unwrap();
        // Section 3.1 of the paper, with n = 0 and p = 7.
        let (mut by_scale, mut by_offset) = (0f32, 0f32);
        let mut by_x = vec![];
        for (x, dy) in x.iter().zip(dy) {
            let v = (x - b) / s;
            let (q, inside) = (v.round_ties_even().clamp(0.0, 7.0), (0.0..=7.0).contains(&v.round_ties_even()));
            by_scale += dy * if inside { q - v } else { q };
            by_offset += dy * if inside { 0.0 } else { 1.0 };
            by_x.push(if inside { dy } else { 0.0 });
        }
        let of = |leaf: &Tensor| gradients.get(leaf).unwrap().to_f32_vec().unwrap();
        assert_eq!(of(&leaves[0]), by_x);
        assert!((of(&leaves[1])[0] - by_scale).abs() < 1e-4, "{:?} against {by_scale}", of(&leaves[1]));
        assert!((of(&leaves[2])[0] - by_offset).abs() < 1e-4, "{:?} against {by_offset}", of(&leaves[2]));
    }

    #[test]
    fn a_step_leaves_bounds_positive_and_offsets_where_they_are() {
        let project = |name: &str| AffineSettings::activation(4).project(name, &Tensor::scalar(2f32), Tensor::scalar(-1f32)).unwrap();
        assert_eq!((project(CLIP), project(OFFSET)), (Tensor::scalar(1f32), Tensor::scalar(-1f32)));
    }
}
