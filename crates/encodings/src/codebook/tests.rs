use super::*;
use crate::testing::weight;
use crate::{Decode, open, simulate, store};
use graph::Annotation;
use proptest::prelude::*;
use tensor::{DType, gradcheck, random};

fn choices() -> Vec<Codebook> {
    let one = |granularity, channel_scale| Codebook { granularity, channel_scale, ..Codebook::default() };
    vec![
        one(Granularity::Tensor, false),
        one(Granularity::Tensor, true),
        one(Granularity::Channel, true),
        one(Granularity::Group(3), true),
        one(Granularity::Group(2), false),
    ]
}

fn squared_error(a: &Tensor, b: &Tensor) -> f64 {
    a.to_f64_vec().unwrap().iter().zip(b.to_f64_vec().unwrap()).map(|(a, b)| (a - b).powi(2)).sum()
}

#[test]
fn sixteen_values_are_stored_exactly_in_four_bits() {
    let w = Tensor::new((0..64).map(|i| (i % 16) as f32 - 5.0).collect(), [4, 16]).unwrap();
    let e = Codebook { channel_scale: false, ..Codebook::default() }.fit(&w, Slot::default()).unwrap();
    let annotation = Annotation { mask: None, encoding: Some(e.clone()) };
    assert_eq!(simulate(&w, &annotation).unwrap(), w);
    assert_eq!(crate::describe(&e), "4-bit codebook per tensor");
}

#[test]
fn channels_of_different_range_share_a_table_by_their_scales() {
    let w = weight(1, &[8, 4, 3, 3]);
    let factors = Tensor::new((0..8).map(|c| 2f32.powi(c - 4)).collect(), [8, 1, 1, 1]).unwrap();
    let w = w.mul(&factors).unwrap();
    let slot = Slot { axis: Some(0), ..Slot::default() };
    let error = |channel_scale| {
        let e = Codebook { channel_scale, ..Codebook::default() }.fit(&w, slot).unwrap();
        squared_error(&simulate(&w, &Annotation { mask: None, encoding: Some(e) }).unwrap(), &w)
    };
    assert!(error(true) < 0.7 * error(false), "{} {}", error(true), error(false));
}

#[test]
fn masked_elements_are_zero_and_do_not_count_in_the_fit() {
    let w = weight(2, &[4, 16]);
    let mask = Tensor::new((0..64).map(|i| i % 3 != 0).collect::<Vec<bool>>(), [4, 16]).unwrap();
    for settings in choices() {
        let settings = Codebook { zero: false, ..settings };
        let slot = Slot { axis: Some(0), mask: Some(&mask), ..Slot::default() };
        let e = settings.fit(&crate::live(&w, Some(&mask)).unwrap(), slot).unwrap();
        let stored = simulate(&w, &Annotation { mask: Some(mask.clone()), encoding: Some(e.clone()) }).unwrap();
        for (i, v) in stored.to_f32_vec().unwrap().iter().enumerate().filter(|(i, _)| i % 3 == 0) {
            assert_eq!(v.to_bits(), 0, "element {i} of {settings:?}");
        }
        // A training step leaves the centroid at zero where it is.
        let before = e.parameters["codebook"].clone();
        let after = crate::project(&e, "codebook", &before, before.add_scalar(0.5).unwrap()).unwrap().to_f32_vec().unwrap();
        for (a, b) in after.iter().zip(before.to_f32_vec().unwrap()) {
            assert_eq!(*a, if b == 0.0 { 0.0 } else { b + 0.5 });
        }
    }
}

#[test]
fn a_mask_on_a_table_without_zero_is_refused() {
    let w = Tensor::new((0..16).map(|i| 1.0 + i as f32).collect(), [16]).unwrap();
    let e = Codebook { zero: false, channel_scale: false, ..Codebook::default() }.fit(&w, Slot::default()).unwrap();
    let mask = Tensor::new(vec![true; 16], [16]).unwrap();
    let error = store(&w, Some(&mask), &e).unwrap_err();
    assert!(error.to_string().contains("zero = true"), "{error}");
    assert!(simulate(&w, &Annotation { mask: Some(mask), encoding: Some(e) }).is_err());
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let w = weight(3, &[4, 8]);
    let slot = Slot { axis: Some(0), ..Slot::default() };
    let e = Codebook { granularity: Granularity::Channel, ..Codebook::default() }.fit(&w, slot).unwrap();
    let codec = open(&e).unwrap();
    assert!(codec.simulate(&weight(3, &[5, 8]), &e.parameters).unwrap_err().to_string().contains("'codebook'"));
    assert!(codec.simulate(&w, &Parameters::new()).unwrap_err().to_string().contains("missing"));
    assert!(codec.store(&Tensor::full(f32::NAN, [4, 8]).unwrap(), &e.parameters).is_err());
    assert!(codec.read(&Tensor::full(16u8, [4, 8]).unwrap(), &e.parameters).unwrap_err().to_string().contains("16"));
    assert!(Codebook::default().fit(&Tensor::vector(vec![f32::INFINITY]), Slot::default()).is_err());
    let mut wide = e.clone();
    wide.settings.insert("bits".into(), Setting::Int(9));
    assert!(open(&wide).unwrap_err().to_string().contains("'bits'"));
    let nan = codec.simulate(&Tensor::full(f32::NAN, [4, 8]).unwrap(), &e.parameters).unwrap();
    assert!(nan.to_f32_vec().unwrap().iter().all(|v| v.is_nan()));
}

/// Between two assignments the result is linear in the centroids.
#[test]
fn a_centroids_gradient_is_the_sum_of_its_weights() {
    let w = weight(4, &[6, 40]);
    for settings in choices() {
        let e = settings.fit(&w, Slot { axis: Some(0), ..Slot::default() }).unwrap();
        let codec = open(&e).unwrap();
        gradcheck::check(&[e.parameters["codebook"].cast(DType::F64).unwrap()], |t| {
            let mut parameters = e.parameters.clone();
            parameters.insert("codebook".into(), t[0].clone());
            let x = w.cast(DType::F64).unwrap();
            codec.simulate(&x, &parameters).map_err(|e| tensor::TensorError::value("simulate", e.to_string()))
        })
        .unwrap();
    }
}

#[test]
fn the_weights_gradient_passes_straight_through() {
    let w = weight(5, &[4, 8]).tracked().unwrap();
    let e = Codebook::default().fit(&w.detach(), Slot { axis: Some(0), ..Slot::default() }).unwrap();
    let y = open(&e).unwrap().simulate(&w, &e.parameters).unwrap();
    let dy = random::normal(6, &[4, 8], 0.0, 1.0).unwrap();
    assert_eq!(y.backward_from(dy.clone()).unwrap().get(&w).unwrap(), &dy);
}

#[test]
fn refitting_keeps_the_form() {
    let w = weight(7, &[6, 10]);
    for settings in choices() {
        let e = settings.fit(&w, Slot { axis: Some(0), ..Slot::default() }).unwrap();
        assert_eq!(crate::refit(&w, None, &e).unwrap(), e, "{settings:?}");
    }
}

proptest! {
    #[test]
    fn simulation_is_what_the_stored_indices_read_back_as(
        seed: u64, bits in 2u32..=8, axis in 0usize..3, choice in 0usize..5, zero: bool,
    ) {
        let w = weight(seed, &[4, 5, 6]);
        let settings = Codebook { bits, zero, ..choices()[choice].clone() };
        let e = settings.fit(&w, Slot { axis: Some(axis), ..Slot::default() }).unwrap();
        let simulated = simulate(&w, &Annotation { mask: None, encoding: Some(e.clone()) }).unwrap();
        let stored = store(&w, None, &e).unwrap();
        prop_assert_eq!(&crate::read(&stored.data, &e).unwrap(), &simulated);
        // As read from a file: the decoding alone, without settings.
        let lifted = stored.decode.encoding().unwrap();
        prop_assert_eq!(&lifted, &e);
        // Decoded values stay: each is nearest to its own centroid.
        prop_assert_eq!(&store(&simulated, None, &lifted).unwrap(), &stored);
        let Decode::Table { table, .. } = &stored.decode else { panic!("a table") };
        prop_assert!(!zero || table.to_f32_vec().unwrap().chunks(1 << bits).all(|t| t.contains(&0.0)));
        prop_assert!(squared_error(&simulated, &w) <= squared_error(&w, &w.zeros_like().unwrap()));
    }
}
