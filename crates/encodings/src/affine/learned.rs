//! Forms in which a grid is learned: by the bound at which it clips, with an offset beside its scale, and by the bound up to which the
//! hyperbolic tangents of a weight reach. The stored form, scale and zero point, follows from each.
use super::AffineSettings;
use crate::{Parameters, Result};
use graph::Encoding;
use tensor::{DType, Tensor};

/// The bound at which values are clipped, in place of the scale: `scale = clip / (qmax - qmin)`, with zero at `qmin`.
pub const CLIP: &str = "clip";

/// The real number that `qmin` stands for, in place of the zero point: `zero_point = round(qmin - offset / scale)`.
pub(super) const OFFSET: &str = "offset";

/// The largest magnitude of a weight that is the hyperbolic tangent of what trains, in place of the scale: `scale = bound / qmax`.
pub(super) const BOUND: &str = "bound";

/// Names of the parameters that are learned.
pub(super) fn parameters(parameters: &Parameters) -> &'static [&'static str] {
    match [CLIP, OFFSET, BOUND].into_iter().find(|name| parameters.contains_key(*name)) {
        Some(CLIP) => &[CLIP],
        Some(OFFSET) => &["scale", OFFSET],
        Some(_) => &[BOUND],
        None => &["scale"],
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

/// The latent weight and the encoding of a weight that trains as a hyperbolic tangent, as DoReFa has it (Zhou et al. 2016,
/// arXiv:1606.06160, equation 9): with `t = tanh(v) / max|tanh(v)|` over the elements that share a scale, the weight is `bound` times `t`
/// rounded to the grid. It begins at what `weight` is, cut off where its grid ends. `None` unless the grid is symmetric.
///
/// # Errors
/// If the encoding is an affine one that is not well formed, or does not fit the weight.
pub fn with_tanh(weight: &Tensor, encoding: &Encoding) -> Result<Option<(Tensor, Encoding)>> {
    if encoding.kind != super::KIND || encoding.parameters.contains_key(graph::FOLDED_SCALE) {
        return Ok(None);
    }
    let grid = super::Grid::of(encoding)?;
    let settings = *grid.settings();
    let zeros = grid.zero_point()?.to_i64_vec()?.iter().all(|z| *z == 0);
    if settings.is_bias() || !settings.symmetric || !settings.signed || !zeros {
        return Ok(None);
    }
    if let Some(blocks) = settings.blocks {
        let rows = blocks.rows(weight)?;
        let list = |t: &Tensor| t.reshape([t.len()]);
        let inner = AffineSettings { axis: Some(0), blocks: None, ..settings };
        let inner = inner.encoding(list(grid.scale())?, list(&encoding.parameters["zero_point"])?);
        let Some((latent, inner)) = with_tanh(&rows, &inner)? else { return Ok(None) };
        let mut out = encoding.clone();
        out.parameters.remove("scale");
        out.parameters.insert(BOUND.into(), inner.parameters[BOUND].reshape(grid.scale().shape())?);
        return Ok(Some((blocks.whole(&latent, weight.shape())?, out)));
    }
    let axis = grid.axis(weight)?;
    let ends = grid.scale().mul_scalar(settings.qmax() as f64)?;
    let all = along(&ends, weight, axis)?;
    let held = weight.min(&all)?.max(&all.neg()?)?;
    // The largest element reaches the bound, so a grid that is wider than its weight ends there.
    let largest = largest(&held, axis)?;
    let empty = largest.equal(&largest.zeros_like()?)?;
    let bound = Tensor::where_(&empty, &all, &largest)?;
    // The largest latent weight is the largest weight, so both train in steps of one size.
    let reach = bound.clip(None, Some(LARGEST))?.tanh()?;
    let latent = held.div(&bound)?.mul(&reach)?.atanh()?;
    let mut out = encoding.clone();
    out.parameters.remove("scale");
    out.parameters.insert(BOUND.into(), bound.reshape(ends.shape())?);
    Ok(Some((latent, out)))
}

/// Latent weights are at most this at first: beyond it tangents hardly differ.
const LARGEST: f64 = 2.0;

/// Settings, scale and zero point of a grid with one scale of its own.
fn of_activation(encoding: &Encoding) -> Result<Option<(AffineSettings, Tensor, i64)>> {
    if encoding.kind != super::KIND {
        return Ok(None);
    }
    let grid = super::Grid::of(encoding)?;
    let (settings, scale) = (*grid.settings(), grid.scale().clone());
    let plain = scale.len() == 1
        && settings.axis.is_none()
        && settings.blocks.is_none()
        && !settings.is_bias()
        && !encoding.parameters.contains_key(graph::FOLDED_SCALE);
    let zero_point = grid.zero_point()?.to_i64_vec()?;
    Ok(zero_point.first().filter(|_| plain).map(|zero_point| (settings, scale, *zero_point)))
}

/// Scale and zero point, where the grid is in another form.
pub(super) fn settle(settings: &AffineSettings, parameters: &Parameters) -> Result<Option<(Parameters, bool)>> {
    if ![CLIP, OFFSET, BOUND].iter().any(|name| parameters.contains_key(*name)) {
        return Ok(None);
    }
    let grid = super::Grid::new(*settings, parameters)?;
    let mut out = parameters.clone();
    [CLIP, OFFSET, BOUND].iter().for_each(|name| drop(out.remove(*name)));
    out.insert("scale".into(), grid.scale().detach());
    out.insert("zero_point".into(), grid.zero_point()?.cast(DType::F32)?);
    Ok(Some((out, parameters.contains_key(BOUND))))
}

fn span(settings: &AffineSettings) -> f64 {
    (settings.qmax() - settings.qmin()) as f64
}

pub(super) fn scale_of_clip(settings: &AffineSettings, clip: &Tensor) -> Result<Tensor> {
    Ok(clip.div(&clip.scalar_like(span(settings))?)?)
}

pub(super) fn scale_of_bound(settings: &AffineSettings, bound: &Tensor) -> Result<Tensor> {
    Ok(bound.div(&bound.scalar_like(settings.qmax() as f64)?)?)
}

/// `bound * tanh(v) / max|tanh(v)|`, with a bound and a largest tangent for each index along the axis.
pub(super) fn bounded(value: &Tensor, bound: &Tensor, axis: Option<usize>) -> Result<Tensor> {
    let tangents = value.tanh()?;
    let largest = largest(&tangents, axis)?;
    let empty = largest.detach().equal(&largest.detach().zeros_like()?)?;
    let divisor = Tensor::where_(&empty, &largest.ones_like()?, &largest)?;
    Ok(tangents.div(&divisor)?.mul(&along(bound, value, axis)?)?)
}

/// The largest magnitude for each index along the axis, or of all, with the value's rank.
fn largest(value: &Tensor, axis: Option<usize>) -> Result<Tensor> {
    let others: Vec<usize> = (0..value.rank()).filter(|a| Some(*a) != axis).collect();
    Ok(value.abs()?.max_reduce(&others, true)?)
}

/// One number for each index along the axis, or one for all, so that it broadcasts to a value.
fn along(list: &Tensor, value: &Tensor, axis: Option<usize>) -> Result<Tensor> {
    let shape: Vec<usize> = (0..value.rank()).map(|a| if Some(a) == axis { list.len() } else { 1 }).collect();
    Ok(list.reshape(shape.as_slice())?)
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
    use crate::testing::annotated;
    use proptest::prelude::*;
    use tensor::{Activation, gradcheck, random};

    fn grid(bits: u32, scale: f32, zero_point: f32) -> Encoding {
        AffineSettings::activation(bits).encoding(Tensor::scalar(scale), Tensor::scalar(zero_point))
    }

    fn settled(encoding: &Encoding) -> Encoding {
        let mut annotation = annotated(encoding.clone());
        assert_eq!(crate::settle(None, &mut annotation).unwrap(), None);
        annotation.encoding.unwrap()
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

    fn weight(seed: u64) -> (Tensor, Encoding) {
        let w: Tensor = random::normal(seed, &[3, 40], 0.0, 0.1).unwrap();
        let e = super::super::fit_weight(&w, &AffineSettings::weight(4, Some(0)), super::super::Precision::FULL, 0.0).unwrap();
        (w, e)
    }

    #[test]
    fn tangents_have_the_gradients_of_the_formula() {
        let v = random::uniform_f64(1, &[2, 3, 4], -2.0, 2.0);
        gradcheck::check(&[v.clone(), random::uniform_f64(2, &[3], 0.5, 2.0)], |t| Ok(bounded(&t[0], &t[1], Some(1)).unwrap())).unwrap();
        gradcheck::check(&[v, Tensor::scalar(1.5f64)], |t| Ok(bounded(&t[0], &t[1], None).unwrap())).unwrap();
        // Zeros alone stay zeros.
        let zeros = Tensor::full(0f64, [2, 3]).unwrap();
        assert_eq!(bounded(&zeros, &Tensor::scalar(1f64), None).unwrap(), zeros);
        // Behind them the grid: straight through, and the bound gets the rounded share of it (equation 9).
        let encoding = AffineSettings::weight(3, None).encoding(Tensor::scalar(0.5f32), Tensor::scalar(0f32));
        let (latent, encoding) = with_tanh(&Tensor::vector(vec![-1.5f32, 0.4, 0.9, -0.2]), &encoding).unwrap().unwrap();
        let (latent, bound) = (latent.tracked().unwrap(), encoding.parameters[BOUND].tracked().unwrap());
        assert_eq!(bound.item::<f32>().unwrap(), 1.5);
        let parameters = Parameters::from([(BOUND.to_string(), bound.clone()), ("zero_point".to_string(), Tensor::scalar(0f32))]);
        let y = AffineSettings::weight(3, None).simulate(&latent, &parameters).unwrap();
        assert_eq!(y.to_f32_vec().unwrap(), [-1.5, 0.5, 1.0, 0.0]);
        let dy = Tensor::vector(vec![0f32, 2.0, 3.0, 5.0]);
        let through = bounded(&latent, &bound.detach(), None).unwrap().backward_from(dy.clone()).unwrap().take(&latent).unwrap();
        let mut gradients = y.backward_from(dy).unwrap();
        let close = |a: &Tensor, b: &[f32]| a.to_f32_vec().unwrap().iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5);
        assert!(close(&gradients.take(&latent).unwrap(), &through.to_f32_vec().unwrap()));
        assert!(close(&gradients.take(&bound).unwrap(), &[2.0 / 3.0 + 3.0 * 2.0 / 3.0]));
    }

    proptest! {
        /// A weight begins where it was, to a step of its grid, and is stored as it is simulated.
        #[test]
        fn a_weight_in_tangents_is_what_it_was_and_what_is_stored(seed: u64, masked: bool) {
            let (w, e) = weight(seed);
            let live: Vec<bool> = (0..120).map(|i| i % 3 != 1).collect();
            let mask = masked.then(|| Tensor::new(live, [3, 40]).unwrap());
            let (latent, form) = with_tanh(&crate::live(&w, mask.as_ref()).unwrap(), &e).unwrap().unwrap();
            let before = crate::simulate(&w, &graph::Annotation { mask: mask.clone(), encoding: Some(e.clone()) }).unwrap();
            let mut annotation = graph::Annotation { mask: mask.clone(), encoding: Some(form) };
            let trained = crate::simulate(&latent, &annotation).unwrap();
            let steps = e.parameters["scale"].to_f32_vec().unwrap();
            for (i, (a, b)) in before.to_f32_vec().unwrap().iter().zip(trained.to_f32_vec().unwrap()).enumerate() {
                prop_assert!((a - b).abs() <= 1.001 * steps[i / 40], "{i}: {a} became {b}");
            }
            let live = crate::live(&latent, mask.as_ref()).unwrap();
            let integers = crate::affine::quantize_to_int(&live, annotation.encoding.as_ref().unwrap()).unwrap();
            let stored = crate::settle(Some(&latent), &mut annotation).unwrap().unwrap();
            prop_assert_eq!(&stored, &trained);
            prop_assert_eq!(integers, crate::affine::quantize_to_int(&stored, annotation.encoding.as_ref().unwrap()).unwrap());
            prop_assert_eq!(annotation.encoding.as_ref().unwrap().parameters.keys().collect::<Vec<_>>(), ["scale", "zero_point"]);
            prop_assert_eq!(&crate::simulate(&stored, &annotation).unwrap(), &trained);
            if let Some(mask) = mask {
                let dead = stored.to_f32_vec().unwrap().into_iter().zip(mask.as_slice::<bool>().unwrap()).filter(|(_, live)| !**live);
                prop_assert!(dead.into_iter().all(|(v, _)| v == 0.0));
            }
        }
    }

    #[test]
    fn a_step_leaves_bounds_positive_and_offsets_where_they_are() {
        let project = |name: &str| AffineSettings::activation(4).project(name, &Tensor::scalar(2f32), Tensor::scalar(-1f32)).unwrap();
        assert_eq!((project(CLIP), project(OFFSET)), (Tensor::scalar(1f32), Tensor::scalar(-1f32)));
    }
}
