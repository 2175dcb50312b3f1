use crate::additive_power_of_two::{AdditivePowerOfTwo, Sums};
use crate::clipped::LevelSet;
use crate::power_of_two::{PowerOfTwo, Powers};
use crate::testing::{annotated, slot, stored_as_simulated};
use crate::{EncodingError, Granularity, Slot, WeightEncoding, simulate, store};
use graph::Setting;
use proptest::prelude::*;
use std::collections::BTreeMap;
use tensor::{DType, Tensor, TensorError, gradcheck, random};

fn choices() -> Vec<Box<dyn WeightEncoding>> {
    let mut all: Vec<Box<dyn WeightEncoding>> = vec![];
    for bits in 2..=5 {
        for granularity in [Granularity::Tensor, Granularity::Channel] {
            for flag in [false, true] {
                all.push(Box::new(PowerOfTwo { bits, granularity, power_of_two_scale: flag }));
                all.push(Box::new(AdditivePowerOfTwo { bits, granularity, normalize: flag }));
            }
        }
    }
    all
}

#[test]
fn the_levels_are_the_papers() {
    assert_eq!(Powers::magnitudes(2), [0.0, 1.0]);
    assert_eq!(Powers::magnitudes(3), [0.0, 0.25, 0.5, 1.0]);
    assert_eq!(Powers::magnitudes(4), [0.0, 1.0 / 64.0, 1.0 / 32.0, 1.0 / 16.0, 0.125, 0.25, 0.5, 1.0]);
    assert_eq!(Sums::magnitudes(3), [0.0, 0.25, 0.5, 1.0]);
    // The authors' code for 4 bits: {0, 1/2, 1/4, 1/16} + {0, 1/8}, the largest 5/8.
    let sixteenths = [0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0];
    assert_eq!(Sums::magnitudes(4), sixteenths.map(|s| s / 10.0));
    assert_eq!(Sums::magnitudes(5).len(), 16);
    for bits in 2..=5 {
        for m in [Powers::magnitudes(bits), Sums::magnitudes(bits)] {
            assert!(m.windows(2).all(|m| m[0] < m[1]) && m[0] == 0.0 && m[m.len() - 1] == 1.0 && m.len() <= 1 << (bits - 1));
        }
    }
}

#[test]
fn weights_on_the_levels_stay() {
    let of = |magnitudes: Vec<f64>| {
        let both = magnitudes.iter().flat_map(|m| [0.24 * *m as f32, -0.24 * *m as f32]).collect::<Vec<f32>>();
        Tensor::new(both, [1, 2 * magnitudes.len()]).unwrap()
    };
    for bits in 2..=5 {
        let weights: [(Box<dyn WeightEncoding>, Tensor); 2] = [
            (Box::new(PowerOfTwo { bits, ..PowerOfTwo::default() }), of(Powers::magnitudes(bits))),
            (Box::new(AdditivePowerOfTwo { bits, ..AdditivePowerOfTwo::default() }), of(Sums::magnitudes(bits))),
        ];
        for (settings, w) in weights {
            let y = simulate(&w, &annotated(settings.fit(&w, slot()).unwrap())).unwrap();
            for (a, b) in y.to_f64_vec().unwrap().iter().zip(w.to_f64_vec().unwrap()) {
                assert!((a - b).abs() < 1e-6, "{settings:?}: {a} {b}");
            }
        }
    }
}

#[test]
fn every_weight_is_a_power_of_two_where_the_scale_is_one() {
    let w: Tensor = random::normal(1, &[3, 30], 0.0, 0.1).unwrap();
    let settings = PowerOfTwo { power_of_two_scale: true, ..PowerOfTwo::default() };
    let e = settings.fit(&w, slot()).unwrap();
    assert!(crate::trainable(&e).is_empty());
    let y = simulate(&w, &annotated(e)).unwrap().to_f64_vec().unwrap();
    assert!(y.iter().all(|v| *v == 0.0 || v.abs().log2().fract() == 0.0), "{y:?}");
}

#[test]
fn the_scale_s_gradient_is_the_papers_and_the_weight_s_passes_straight_through() {
    // 3 bits at scale 0.8: levels 0, 0.2, 0.4, 0.8. z = 0.125, 0.75 (to 0.5, the lower of two), 2.5 (clipped), -1.25 (clipped).
    let w = Tensor::new(vec![0.1f64, 0.6, 2.0, -1.0], [1, 4]).unwrap().tracked().unwrap();
    let mut e = PowerOfTwo { bits: 3, ..PowerOfTwo::default() }.fit(&w.detach(), slot()).unwrap();
    e.parameters.insert("scale".into(), Tensor::vector(vec![0.8f64]).tracked().unwrap());
    let y = simulate(&w, &annotated(e.clone())).unwrap();
    let wanted = [0.0, 0.4, 0.8, -0.8];
    assert!(y.to_f64_vec().unwrap().iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-12), "{y:?}");
    let dy = Tensor::new(vec![1f64, 10.0, 100.0, 1000.0], [1, 4]).unwrap();
    let g = y.backward_from(dy.clone()).unwrap();
    assert_eq!(g.get(&w).unwrap(), &dy);
    let by_scale = g.get(&e.parameters["scale"]).unwrap().to_f64_vec().unwrap()[0];
    let expected = (0.0 - 0.125) + 10.0 * (0.5 - 0.75) + 100.0 - 1000.0;
    assert!((by_scale - expected).abs() < 1e-9, "{by_scale} {expected}");
}

#[test]
fn of_clipped_weights_the_scale_s_gradient_is_the_true_one() {
    let w = Tensor::new(vec![5f64, -4.0, 3.0, 6.0, -7.0, 9.0], [2, 3]).unwrap();
    for granularity in [Granularity::Tensor, Granularity::Channel] {
        let e = AdditivePowerOfTwo { granularity, ..AdditivePowerOfTwo::default() }.fit(&w, slot()).unwrap();
        let scale = e.parameters["scale"].cast(DType::F64).unwrap().mul_scalar(0.1).unwrap();
        let checked = gradcheck::check(&[scale], |scale| {
            let mut e = e.clone();
            e.parameters.insert("scale".into(), scale[0].clone());
            simulate(&w, &annotated(e)).map_err(|e| TensorError::value("clipped", e.to_string()))
        });
        checked.unwrap();
    }
}

#[test]
fn a_normalized_weight_has_no_mean_and_passes_none_of_its_gradient() {
    let settings = AdditivePowerOfTwo { normalize: true, ..AdditivePowerOfTwo::default() };
    let w = random::uniform_f64(2, &[2, 40], 1.0, 2.0);
    let e = settings.fit(&w, slot()).unwrap();
    let y = simulate(&w.tracked().unwrap(), &annotated(e.clone())).unwrap();
    let mean = |t: &Tensor| t.to_f64_vec().unwrap().iter().sum::<f64>() / t.len() as f64;
    assert!(mean(&y).abs() < 0.05 && mean(&w) > 1.0);
    let tracked = w.tracked().unwrap();
    let g = simulate(&tracked, &annotated(e.clone())).unwrap().backward_from(random::uniform_f64(3, &[2, 40], 0.0, 1.0)).unwrap();
    assert!(mean(g.get(&tracked).unwrap()).abs() < 1e-12);
    // Centre and deviation follow the weight, the scale stays.
    let followed = crate::follow(&w.mul_scalar(2.0).unwrap(), None, &e, 0.0).unwrap().unwrap();
    assert_eq!(followed["scale"], e.parameters["scale"]);
    let ratio = followed["deviation"].to_f64_vec().unwrap()[0] / e.parameters["deviation"].to_f64_vec().unwrap()[0];
    assert!((ratio - 2.0).abs() < 1e-5);
    let mask = Tensor::new(vec![true; 80], [2, 40]).unwrap();
    assert!(matches!(settings.fit(&w, Slot { mask: Some(&mask), ..slot() }), Err(EncodingError::NoZero { .. })));
}

#[test]
fn masked_weights_are_zeros() {
    let w: Tensor = random::normal(4, &[2, 20], 0.0, 0.1).unwrap();
    let mask = Tensor::new((0..40).map(|i| i % 3 != 0).collect::<Vec<bool>>(), [2, 20]).unwrap();
    for settings in choices() {
        let Ok(e) = settings.fit(&crate::live(&w, Some(&mask)).unwrap(), Slot { mask: Some(&mask), ..slot() }) else { continue };
        let stored = store(&w, Some(&mask), &e).unwrap();
        let real = crate::read(&stored.data, &stored.decode.encoding().unwrap()).unwrap().to_f32_vec().unwrap();
        assert!(real.iter().enumerate().filter(|(i, _)| i % 3 == 0).all(|(_, v)| v.to_bits() == 0), "{settings:?}");
    }
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    assert!(PowerOfTwo::default().fit(&Tensor::vector(vec![f32::NAN]), Slot::default()).is_err());
    for kind in [crate::power_of_two::KIND, crate::additive_power_of_two::KIND] {
        for wrong in ["bits", "normalize", "shifts", "axis"] {
            let settings = BTreeMap::from([(wrong.to_string(), Setting::Text("x".into()))]);
            let error = crate::find(kind).unwrap().open(&settings).unwrap_err().to_string();
            assert!(error.contains(wrong) && error.contains(kind), "{error}");
        }
    }
}

proptest! {
    #[test]
    fn what_is_stored_is_what_was_simulated(seed in 0u64..500, channels in 1usize..4, columns in 1usize..9, kind in 0usize..32) {
        stored_as_simulated(choices()[kind].as_ref(), seed, &[channels, columns]);
    }

    #[test]
    fn a_scale_of_much_less_error_is_not_missed(x in prop::collection::vec(-3f32..3.0, 1..12), kind in 0usize..32) {
        let settings = &choices()[kind];
        let w = Tensor::new(x.clone(), [1, x.len()]).unwrap();
        let e = settings.fit(&w, slot()).unwrap();
        if crate::trainable(&e).is_empty() || e.parameters.contains_key("centre") {
            return Ok(());
        }
        let error = |scale: f32| {
            let mut e = e.clone();
            let shape = e.parameters["scale"].shape().to_vec();
            e.parameters.insert("scale".into(), Tensor::new(vec![scale], shape.as_slice()).unwrap());
            let y = simulate(&w, &annotated(e)).unwrap().to_f64_vec().unwrap();
            y.iter().zip(&x).map(|(a, b)| (a - f64::from(*b)).powi(2)).sum::<f64>()
        };
        let own = error(e.parameters["scale"].to_f32_vec().unwrap()[0]);
        let largest = x.iter().fold(0f32, |m, x| m.max(x.abs())).max(1e-3);
        let energy: f64 = x.iter().map(|x| f64::from(*x).powi(2)).sum();
        for i in 20..=120 {
            prop_assert!(own <= error(largest * i as f32 / 100.0) + 0.02 * energy + 1e-9);
        }
    }
}
