use super::*;
use crate::{Along, EncodingError};
use graph::Setting;
use proptest::prelude::*;
use tensor::{DType, gradcheck};

fn simulate(value: &Tensor, encoding: &Encoding) -> Result<Tensor> {
    AffineSettings::of(encoding)?.simulate(value, &encoding.parameters)
}

fn per_tensor(settings: AffineSettings, scale: f32, zero_point: f32) -> Encoding {
    settings.encoding(Tensor::scalar(scale), Tensor::scalar(zero_point))
}

#[test]
fn rounds_half_to_even_and_saturates() {
    let e = per_tensor(AffineSettings::activation(8), 0.5, 10.0);
    let x = Tensor::vector(vec![0f32, 0.25, 0.75, 1.25, -5.0, -5.5, 122.5, 1e30, -1e30, f32::INFINITY]);
    let q = quantize_to_int(&x, &e).unwrap();
    assert_eq!(q, Tensor::vector(vec![10u8, 10, 12, 12, 0, 0, 255, 255, 0, 255]));
    assert_eq!(dequantize(&q, &e).unwrap().as_slice::<f32>().unwrap()[2], 1.0);
}

#[test]
fn bounds_and_types_of_each_width() {
    let w = AffineSettings::weight(8, None);
    assert_eq!((w.qmin(), w.qmax(), w.dtype()), (-127, 127, DType::I8));
    let r = AffineSettings { reduce_range: true, ..w };
    assert_eq!((r.qmin(), r.qmax(), r.dtype()), (-63, 63, DType::I8));
    let a = AffineSettings::activation(4);
    assert_eq!((a.qmin(), a.qmax(), a.dtype()), (0, 15, DType::U4));
    let b = AffineSettings::bias(Some(0));
    assert_eq!((b.qmin(), b.qmax(), b.dtype()), (-(1 << 31), (1 << 31) - 1, DType::I32));
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let e = per_tensor(AffineSettings::activation(8), 1.0, 0.0);
    assert!(matches!(quantize_to_int(&Tensor::vector(vec![f32::NAN]), &e), Err(EncodingError::Value { .. })));
    for (scale, zero_point) in [(0.0, 0.0), (-1.0, 0.0), (f32::NAN, 0.0), (f32::INFINITY, 0.0), (1.0, 0.5), (1.0, 256.0), (1.0, -1.0)] {
        assert!(Grid::of(&per_tensor(AffineSettings::activation(8), scale, zero_point)).is_err(), "{scale} {zero_point}");
    }
    let mut wide = e.clone();
    wide.settings.insert("bits".into(), Setting::Int(17));
    assert!(Grid::of(&wide).unwrap_err().to_string().contains("'bits'"));
    wide.settings.insert("bits".into(), Setting::Text("eight".into()));
    assert!(Grid::of(&wide).unwrap_err().to_string().contains("'bits'"));
    let per_channel = AffineSettings::weight(8, Some(0)).encoding(Tensor::vector(vec![1f32; 3]), Tensor::vector(vec![0f32; 3]));
    let wrong = Tensor::full(1f32, [2, 3]).unwrap();
    assert!(simulate(&wrong, &per_channel).is_err() && quantize_to_int(&wrong, &per_channel).is_err());
}

#[test]
fn a_step_leaves_scales_positive() {
    let e = per_tensor(AffineSettings::activation(8), 1.0, 0.0);
    let (before, after) = (Tensor::vector(vec![1f32, 1.0, 1.0]), Tensor::vector(vec![-3f32, 0.75, 4.0]));
    assert_eq!(crate::project(&e, "scale", &before, after).unwrap(), Tensor::vector(vec![0.5f32, 0.75, 4.0]));
}

#[test]
fn degenerate_ranges_are_defined() {
    let scale = |lo, hi, s: AffineSettings| fit_range(lo, hi, &s).map(|e| e.parameters["scale"].item::<f32>().unwrap());
    let (a, w) = (AffineSettings::activation(8), AffineSettings::weight(8, None));
    assert_eq!(scale(0.0, 0.0, a).unwrap(), 1.0);
    assert_eq!(scale(0.0, 0.0, w).unwrap(), 1.0);
    // 3 / 255 = 1.506 / 128, rounded up to quarters.
    assert_eq!(scale(3.0, 3.0, a).unwrap(), 1.75 / 128.0);
    assert_eq!(scale(0.0, 255.0, a).unwrap(), 1.0);
    assert_eq!(scale(0.0, 1e-45, a).unwrap(), f32::MIN_POSITIVE);
    assert!(scale(-f32::MAX, f32::MAX, a).unwrap().is_finite());
    for (lo, hi) in [(f32::NAN, 1.0), (0.0, f32::INFINITY), (2.0, 1.0)] {
        assert!(scale(lo, hi, a).is_err());
    }
}

#[test]
fn a_channel_of_zeros_takes_the_largest_scale() {
    let w = Tensor::new(vec![0f32, 0.0, 1.27, -0.5, 2.54, 0.0], [3, 2]).unwrap();
    let fit =
        |w: &Tensor, precision| fit_weight(w, &AffineSettings::weight(8, Some(0)), precision, 0.0).unwrap().parameters["scale"].clone();
    // Scales of full precision hold 127 of 0.01 and of 0.02 as they are.
    let s = fit(&w, Precision::FULL).to_f32_vec().unwrap();
    assert!((s[1] - 0.01).abs() < 1e-4 && (s[2] - 0.02).abs() < 1e-4, "{s:?}");
    assert_eq!(s[0], s[2]);
    let short = fit(&w, Precision::WEIGHT).to_f32_vec().unwrap();
    assert!(short.iter().all(|s| odd_part(*s) <= 15), "{short:?}");
    let all_zero = fit_weight(&Tensor::full(0f32, [2, 2]).unwrap(), &AffineSettings::weight(8, Some(0)), Precision::WEIGHT, 0.0).unwrap();
    assert_eq!(all_zero.parameters["scale"], Tensor::vector(vec![1f32, 1.0]));
    assert!(fit_weight(&Tensor::vector(vec![f32::INFINITY]), &AffineSettings::weight(8, None), Precision::FULL, 0.0).is_err());
}

#[test]
fn a_bias_that_overflows_raises_its_channels_scale() {
    let bias = Tensor::vector(vec![1f32, 1e6]);
    let (e, weights) = fit_bias(&bias, 1e-3, &Tensor::vector(vec![1e-3f32, 1e-3]), true).unwrap();
    let w = weights.as_slice::<f32>().unwrap();
    assert_eq!(w[0], 1e-3);
    let (_, same) = fit_bias(&bias, 1e-3, &Tensor::vector(vec![1e-3f32, 1.0]), true).unwrap();
    assert_eq!(same.as_slice::<f32>().unwrap()[1], 1.0);
    let (tiny, raised) = fit_bias(&bias, 1e-6, &Tensor::vector(vec![1e-6f32, 1e-6]), true).unwrap();
    assert!(raised.as_slice::<f32>().unwrap()[1] > 1e-6);
    for e in [e, tiny] {
        let y = simulate(&bias, &e).unwrap();
        for (y, b) in y.as_slice::<f32>().unwrap().iter().zip(bias.as_slice::<f32>().unwrap()) {
            assert!((y - b).abs() <= b.abs() * 1e-6);
        }
        assert!(crate::trainable(&e).is_empty());
    }
}

/// Products of 2-bit integers count up to 3, those of 4-bit ones up to 105.
#[test]
fn a_bias_on_a_coarse_accumulator_gets_a_finer_grid() {
    let bias = Tensor::vector(vec![0.07f32, -0.21, 3e6, 0.0]);
    let weight = Tensor::vector(vec![0.25f32, 0.3, 0.25, 1e-9]);
    let (coarse, _) = fit_bias(&bias, 0.5, &weight, false).unwrap();
    let scales = |e: &Encoding| e.parameters["scale"].to_f32_vec().unwrap();
    assert_eq!(refine_bias(&bias, coarse.clone(), 105).unwrap(), coarse);
    let fine = refine_bias(&bias, coarse.clone(), 3).unwrap();
    for (i, (of, unit)) in scales(&fine).iter().zip(scales(&coarse)).enumerate().filter(|(i, _)| *i != 2) {
        assert!((64.0..128.1).contains(&(unit / of)) && crate::affine::odd_part(*of) == 1, "{i}: {of} {unit}");
    }
    // An element that 24 bits of the finer grid do not hold stays on a coarser one.
    assert_eq!((scales(&fine)[2], scales(&coarse)[2]), (0.125, 0.125));
    let (y, b) = (simulate(&bias, &fine).unwrap().to_f32_vec().unwrap(), bias.to_f32_vec().unwrap());
    for ((y, b), scale) in y.iter().zip(&b).zip(scales(&fine)) {
        assert!((y - b).abs() <= 0.5 * scale, "{y} {b}");
    }
}

/// Brute force over every scale of the precision, each with every zero point.
#[test]
fn the_scale_of_least_error_is_taken() {
    let settings = AffineSettings::activation(4);
    let x: Vec<f32> = (0..400).map(|i| (i as f32 / 40.0).sin() * (i as f32 / 200.0)).collect();
    let (lo, hi) = x.iter().fold((0f32, 0f32), |(lo, hi), v| (lo.min(*v), hi.max(*v)));
    let error = |scale: f32, zero: f32| {
        let e = per_tensor(settings, scale, zero);
        let y = simulate(&Tensor::vector(x.clone()), &e).unwrap();
        y.as_slice::<f32>().unwrap().iter().zip(&x).map(|(y, x)| f64::from(y - x).powi(2)).sum::<f64>()
    };
    for limit in [1.0, 3.0, 7.0, 31.0] {
        let e = fit_least((lo, hi), &settings, Precision::up_to(limit), error).unwrap();
        let number = |name: &str| e.parameters[name].item::<f32>().unwrap();
        let found = error(number("scale"), number("zero_point"));
        let wanted = (hi - lo) / 15.0;
        let scales = Precision::up_to(limit).between(0.7 * wanted, 1.15 * wanted, wanted);
        let all = scales.iter().flat_map(|s| (0..16).map(|z| error(*s, z as f32)));
        assert_eq!(found, all.fold(f64::INFINITY, f64::min), "limit {limit}");
        assert!(odd_part(number("scale")) <= limit as u32);
    }
    // Excluded scales are not taken; if all are excluded, the range is covered.
    let e = fit_least((lo, hi), &settings, Precision::WEIGHT, |_, _| f64::INFINITY).unwrap();
    assert!(e.parameters["scale"].item::<f32>().unwrap() * 15.0 >= hi - lo);
}

#[test]
fn a_grids_ends_stay_finite() {
    for (lo, hi) in [(f32::MIN, 0.0), (0.0, f32::MAX), (f32::MIN, f32::MAX), (f32::MIN, 1e38)] {
        for e in [
            fit_range(lo, hi, &AffineSettings::activation(8)).unwrap(),
            fit_least((lo, hi), &AffineSettings::activation(8), Precision::WEIGHT, |_, _| 0.0).unwrap(),
            fit_weight(&Tensor::vector(vec![lo, hi]), &AffineSettings::weight(8, None), Precision::WEIGHT, 0.0).unwrap(),
        ] {
            let y = simulate(&Tensor::vector(vec![lo, hi, 0.0]), &e).unwrap();
            assert!(y.as_slice::<f32>().unwrap().iter().all(|v| v.is_finite()), "{lo} {hi}: {y:?}");
        }
    }
}

/// The sum of a layer with tiny weights beside a large bias: bias and products are whole numbers of units, of which f32
/// counts 2^24.
#[test]
fn a_large_bias_leaves_sums_exact() {
    let (input, weight) = (1.75f32 / 64.0, Tensor::vector(vec![1.875f32 / 4096.0, 1.875 / 4096.0]));
    let bias = Tensor::vector(vec![0.5f32, 1e6 * 1.75 / 64.0 * 1.875 / 4096.0]);
    let (_, raised) = fit_bias(&bias, input, &weight, true).unwrap();
    let raised = raised.to_f32_vec().unwrap();
    assert_eq!(raised[0], 1.875 / 4096.0);
    assert!(raised[1] > raised[0], "{raised:?}");
    let units = f64::from(bias.as_slice::<f32>().unwrap()[1]) / (unit(input) * unit(raised[1]));
    assert!(units <= (1u64 << 23) as f64, "{units}");
    // No more than needed: coarser by less than half.
    assert!(raised[1] <= 1.6 * raised[0], "{raised:?}");
    assert_eq!(fit_bias(&bias, input, &weight, false).unwrap().1, weight);
    // A bias that no short scale of this size holds takes a coarser one.
    let huge = Tensor::vector(vec![0.0f32, 300.0 * bias.as_slice::<f32>().unwrap()[1]]);
    let raised = fit_bias(&huge, input, &weight, true).unwrap().1.to_f32_vec().unwrap()[1];
    assert!(f64::from(huge.as_slice::<f32>().unwrap()[1]) / (unit(input) * unit(raised)) <= (1u64 << 23) as f64);
}

#[test]
fn the_gradient_passes_inside_the_range_and_stops_outside() {
    let e = per_tensor(AffineSettings::activation(8), 1.0, 0.0);
    let x = Tensor::vector(vec![-1f32, 3.3, 254.9, 256.0]).tracked().unwrap();
    let y = simulate(&x, &e).unwrap();
    let g = y.backward_from(Tensor::vector(vec![1f32; 4])).unwrap();
    assert_eq!(g.get(&x).unwrap(), &Tensor::vector(vec![0f32, 1.0, 1.0, 0.0]));
}

/// The scale's gradient on saturated elements is exact: the output is `(bound - zero_point) * scale` there.
#[test]
fn the_scales_gradient_is_that_of_the_bound_outside_the_range() {
    let settings = AffineSettings::weight(4, None);
    let x = Tensor::vector(vec![20f64, -30.0, 9.0]);
    let scale = Tensor::scalar(0.5f64);
    gradcheck::check(&[scale], |t| {
        let e = settings.encoding(t[0].clone(), Tensor::scalar(0f64));
        simulate(&x, &e).map_err(|e| tensor::TensorError::value("simulate", e.to_string()))
    })
    .unwrap();
}

fn in_groups(bits: u32, axis: usize, flat: bool, size: usize) -> AffineSettings {
    AffineSettings { blocks: Some(Blocks { along: Along { axis, flat }, size }), ..AffineSettings::weight(bits, None) }
}

#[test]
fn each_group_has_the_scale_that_it_has_alone() {
    // Groups of two of three inputs: the second one has one element.
    let w = Tensor::new(vec![0.7f32, -0.3, 7.0, 0.0, 0.1, -0.2], [2, 3]).unwrap();
    let e = fit_weight(&w, &in_groups(4, 1, false, 2), Precision::FULL, 0.0).unwrap();
    assert_eq!((e.parameters["scale"].shape(), crate::describe(&e).as_str()), (&[2, 2][..], "int4 per group of 2"));
    let alone = |x: &[f32]| {
        let e = fit_weight(&Tensor::vector(x.to_vec()), &AffineSettings::weight(4, None), Precision::FULL, 0.0).unwrap();
        e.parameters["scale"].item::<f32>().unwrap()
    };
    let scales = [[0.7, -0.3].as_slice(), &[7.0], &[0.0, 0.1], &[-0.2]].map(alone);
    assert_eq!(e.parameters["scale"].to_f32_vec().unwrap(), scales);
    // By hand on scales of 0.1, 1, 0.05 and 0.1: 7 of 7 fit; 0.04 is 0.8 of 0.05.
    let scale = Tensor::new(vec![0.1f32, 1.0, 0.05, 0.1], [2, 2]).unwrap();
    let e = in_groups(4, 1, false, 2).encoding(scale, Tensor::full(0f32, [2, 2]).unwrap());
    let x = Tensor::new(vec![0.72f32, -0.26, 9.0, 0.04, 0.2, 0.26], [2, 3]).unwrap();
    let q = quantize_to_int(&x, &e).unwrap();
    assert_eq!(q.to_i64_vec().unwrap(), [7, -3, 7, 1, 4, 3]);
    assert_eq!(simulate(&x, &e).unwrap(), dequantize(&q, &e).unwrap());
    // One scale too few is refused by name.
    let wrong = in_groups(4, 1, false, 2).encoding(Tensor::vector(vec![1f32; 3]), Tensor::vector(vec![0f32; 3]));
    let error = simulate(&x, &wrong).unwrap_err().to_string();
    assert!(error.contains("groups of 2") && error.contains("[2, 2]"), "{error}");
}

/// On saturated elements the output is `7 s` or `-7 s` of the group's own scale, and so is the gradient; the last group is padded.
#[test]
fn the_gradient_of_each_groups_scale_is_that_of_its_elements() {
    for (axis, flat, scales) in [(1, false, vec![2, 2, 3]), (1, true, vec![2, 5]), (0, false, vec![1, 3, 3])] {
        let settings = in_groups(4, axis, flat, 2);
        let shape = settings.blocks.unwrap().scale_shape(&[2, 3, 3]).unwrap();
        assert_eq!(shape, scales);
        let x =
            Tensor::new((0..18).map(|i| if i % 3 == 0 { -20.0 } else { 30.0 + f64::from(i) }).collect::<Vec<f64>>(), [2, 3, 3]).unwrap();
        let count = shape.iter().product::<usize>();
        let scale = Tensor::new((0..count).map(|i| 0.5 + 0.1 * i as f64).collect::<Vec<f64>>(), shape.as_slice()).unwrap();
        gradcheck::check(&[scale], |t| {
            let e = settings.encoding(t[0].clone(), Tensor::full(0f64, shape.as_slice())?);
            simulate(&x, &e).map_err(|e| tensor::TensorError::value("simulate", e.to_string()))
        })
        .unwrap();
        // Inside the range it passes straight through to the value.
        let e = settings.encoding(Tensor::full(100f32, shape.as_slice()).unwrap(), Tensor::full(0f32, shape.as_slice()).unwrap());
        let x = x.cast(DType::F32).unwrap().tracked().unwrap();
        let dy = Tensor::new((0..18).map(|i| i as f32).collect::<Vec<f32>>(), [2, 3, 3]).unwrap();
        let g = simulate(&x, &e).unwrap().backward_from(dy.clone()).unwrap();
        assert_eq!(g.get(&x).unwrap(), &dy);
    }
}

#[test]
fn a_factor_for_each_channel_goes_into_the_scales_of_its_groups() {
    let w = crate::testing::weight(3, &[3, 5]);
    let e = fit_weight(&w, &in_groups(4, 1, false, 2), Precision::FULL, 0.0).unwrap();
    let factor = [2.0, -0.5, 1.0];
    let scaled = crate::scaled(&e, 0, &factor).unwrap().unwrap();
    let rows = Tensor::new(factor.map(|f| f as f32).to_vec(), [3, 1]).unwrap();
    let (before, after) = (simulate(&w, &e).unwrap().mul(&rows).unwrap(), simulate(&w.mul(&rows).unwrap(), &scaled).unwrap());
    assert_eq!(before.add_scalar(0.0).unwrap(), after.add_scalar(0.0).unwrap());
    // Not along the groups themselves.
    assert_eq!(crate::scaled(&e, 1, &[1.0; 5]).unwrap(), None);
}

proptest! {
    /// Stored, read back and lifted as it is simulated; what trains as tangents too.
    #[test]
    fn a_weight_in_groups_is_stored_as_it_is_simulated(
        seed: u64, dims in prop::collection::vec(1usize..6, 1..4), at in 0usize..3, flat: bool, size in 1usize..8, bits in 2u32..=16, masked: bool,
    ) {
        let w = crate::testing::weight(seed, &dims);
        let live: Vec<bool> = (0..w.len()).map(|i| i % 3 != 1).collect();
        let mask = masked.then(|| Tensor::new(live, dims.as_slice()).unwrap());
        let w = crate::live(&w, mask.as_ref()).unwrap();
        let e = fit_weight(&w, &in_groups(bits, at % dims.len(), flat, size), Precision::WEIGHT, 0.0).unwrap();
        prop_assert_eq!(&AffineSettings::of(&e).unwrap().blocks, &in_groups(bits, at % dims.len(), flat, size).blocks);
        let annotation = graph::Annotation { mask: mask.clone(), encoding: Some(e.clone()) };
        let simulated = crate::simulate(&w, &annotation).unwrap();
        let stored = crate::store(&w, mask.as_ref(), &e).unwrap();
        let lifted = stored.decode.encoding().unwrap();
        let same = |a: &Tensor, b: &Tensor| a.add_scalar(0.0).unwrap() == b.add_scalar(0.0).unwrap();
        prop_assert!(same(&crate::read(&stored.data, &lifted).unwrap(), &simulated));
        prop_assert!(same(&simulate(&simulated, &lifted).unwrap(), &simulated));
        let Some((latent, form)) = with_tanh(&w, &e).unwrap() else { return Err(TestCaseError::fail("no tangents")) };
        let mut annotation = graph::Annotation { mask, encoding: Some(form) };
        let trained = crate::simulate(&latent, &annotation).unwrap();
        let settled = crate::settle(Some(&latent), &mut annotation).unwrap().unwrap();
        prop_assert!(same(&crate::simulate(&settled, &annotation).unwrap(), &trained));
    }

    #[test]
    fn simulation_is_what_the_stored_integers_read_back_as(
        data in prop::collection::vec(-300f32..300.0, 24),
        scales in prop::collection::vec(1e-4f32..10.0, 3),
        bits in 2u32..=16,
        signed: bool, narrow_range: bool, per_channel: bool, zero in 0f32..1.0,
    ) {
        let settings = AffineSettings { bits, signed, symmetric: false, narrow_range, reduce_range: bits > 3 && narrow_range, axis: per_channel.then_some(1), blocks: None };
        let zero = (settings.qmin() as f32 + zero * (settings.qmax() - settings.qmin()) as f32).round();
        let e = match per_channel {
            true => settings.encoding(Tensor::vector(scales), Tensor::vector(vec![zero; 3])),
            false => per_tensor(settings, scales[0], zero),
        };
        let x = Tensor::new(data, [2, 3, 4]).unwrap();
        let simulated = simulate(&x, &e).unwrap();
        let stored = quantize_to_int(&x, &e).unwrap();
        prop_assert_eq!(stored.dtype(), settings.dtype());
        let read = dequantize(&stored, &e).unwrap();
        // 0 and -0 are the same number.
        prop_assert_eq!(simulated.add_scalar(0.0).unwrap(), read.add_scalar(0.0).unwrap());
        let again = simulate(&simulated, &e).unwrap();
        prop_assert_eq!(again, simulated);
    }

    #[test]
    fn zero_stays_zero_and_the_range_is_covered(lo in -100f32..100.0, width in 0f32..100.0, bits in 4u32..=8, signed: bool, symmetric: bool) {
        let settings = AffineSettings { bits, signed, symmetric, narrow_range: false, reduce_range: false, axis: None, blocks: None };
        let hi = lo + width;
        let e = fit_range(lo, hi, &settings).unwrap();
        let scale = e.parameters["scale"].item::<f32>().unwrap();
        let y = simulate(&Tensor::vector(vec![0f32, lo, hi]), &e).unwrap();
        let y = y.as_slice::<f32>().unwrap();
        prop_assert_eq!(y[0], 0.0);
        prop_assert!((y[1] - lo).abs() <= scale * 1.001 && (y[2] - hi).abs() <= scale * 1.001, "{:?} {} {}", y, lo, hi);
    }
}

/// Adam's step is as long as its rate, so a small scale may fall at every one of them.
#[test]
fn a_scale_that_falls_at_every_step_stays_one() {
    let weight = Tensor::new(vec![1e-8f32, -2e-8, 0.5, -0.25], [2, 2]).unwrap();
    let mut e = fit_weight(&weight, &AffineSettings::weight(8, Some(0)), Precision::FULL, 0.0).unwrap();
    for _ in 0..400 {
        let before = e.parameters["scale"].clone();
        let after = crate::project(&e, "scale", &before, before.add_scalar(-5e-4).unwrap()).unwrap();
        e.parameters.insert("scale".into(), after);
    }
    let scales = e.parameters["scale"].to_f32_vec().unwrap();
    assert!(scales.iter().all(|s| *s == 2f32.powi(-60)), "{scales:?}");
    assert!(Grid::of(&e).is_ok() && simulate(&weight, &e).unwrap().to_f32_vec().unwrap().iter().all(|v| v.is_finite()));
    // One that was smaller before stays where it was.
    let tiny = Tensor::vector(vec![1e-30f32, 1.0]);
    let after = crate::project(&e, "scale", &tiny, Tensor::vector(vec![-1f32, 0.9])).unwrap();
    assert_eq!(after.to_f32_vec().unwrap(), [1e-30, 0.9]);
}
