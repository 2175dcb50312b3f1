use super::*;
use crate::testing::{annotated, stored_as_simulated, weight};
use crate::{simulate, store};
use proptest::prelude::*;
use tensor::{gradcheck, random};

fn choices() -> Vec<Ternary> {
    let mut all = vec![];
    for granularity in [Granularity::Tensor, Granularity::Channel] {
        for scales in [Scales::Weights, Scales::Learned] {
            for threshold in [Threshold::Optimal, Threshold::Mean(0.7), Threshold::Max(0.05)] {
                all.push(Ternary { granularity, scales, threshold });
            }
        }
    }
    all
}

#[test]
fn three_values_are_stored_exactly() {
    let w = Tensor::new(vec![0.5f32, -0.5, 0.0, 0.5, -2.0, 2.0, 0.0, 0.0], [2, 4]).unwrap();
    for scales in [Scales::Weights, Scales::Learned] {
        let settings = Ternary { scales, ..Ternary::default() };
        let e = settings.fit(&w, Slot { axis: Some(0), ..Slot::default() }).unwrap();
        assert_eq!(simulate(&w, &annotated(e.clone())).unwrap(), w, "{scales:?}");
        assert_eq!(store(&w, None, &e).unwrap().data, Tensor::new(vec![2u8, 0, 1, 2, 0, 2, 1, 1], [2, 4]).unwrap());
    }
}

#[test]
fn the_paper_s_threshold_and_scale() {
    // mean |w| = 0.25, threshold 0.175: above it 0.2, 0.3 and 0.45.
    let w = Tensor::vector(vec![0.2f32, -0.3, 0.05, 0.45]);
    let settings = Ternary { threshold: Threshold::Mean(0.7), granularity: Granularity::Tensor, ..Ternary::default() };
    let e = settings.fit(&w, Slot::default()).unwrap();
    let (t, s) = (e.parameters["threshold"].to_f64_vec().unwrap()[0], e.parameters["scale"].to_f64_vec().unwrap()[0]);
    assert!((t - 0.175).abs() < 1e-7 && (s - 0.95 / 3.0).abs() < 1e-7, "{t} {s}");
    let e = Ternary { scales: Scales::Learned, ..settings }.fit(&w, Slot::default()).unwrap();
    let of = |name: &str| e.parameters[name].to_f64_vec().unwrap()[0];
    assert!((of("positive") - 0.325).abs() < 1e-7 && (of("negative") - 0.3).abs() < 1e-7);
}

#[test]
fn the_gradient_passes_straight_through_or_as_the_paper_has_it() {
    let w = Tensor::new(vec![0.4f64, -0.3, 0.02, 0.2, -0.5, 0.3], [2, 3]).unwrap().tracked().unwrap();
    let dy = Tensor::new(vec![1f64, 2.0, 3.0, 4.0, 5.0, 6.0], [2, 3]).unwrap();
    let plain = Ternary { threshold: Threshold::Mean(0.7), ..Ternary::default() };
    let slot = Slot { axis: Some(0), ..Slot::default() };
    let e = plain.fit(&w.detach(), slot).unwrap();
    let g = simulate(&w, &annotated(e)).unwrap().backward_from(dy.clone()).unwrap();
    assert_eq!(g.get(&w).unwrap(), &dy);
    let mut e = Ternary { scales: Scales::Learned, ..plain }.fit(&w.detach(), slot).unwrap();
    for (name, scales) in [("positive", [0.3, 0.2]), ("negative", [0.1, 0.6])] {
        e.parameters.insert(name.into(), Tensor::vector(scales.to_vec()).tracked().unwrap());
    }
    let y = simulate(&w, &annotated(e.clone())).unwrap();
    assert_eq!(y.detach(), Tensor::new(vec![0.3f64, -0.1, 0.0, 0.0, -0.6, 0.2], [2, 3]).unwrap());
    let g = y.backward_from(dy).unwrap();
    let by_weight = g.get(&w).unwrap().to_f64_vec().unwrap();
    for (a, b) in by_weight.iter().zip([1.5, 1.0, 3.0, 4.0, 7.5, 3.0]) {
        assert!((a - b).abs() < 1e-12, "{by_weight:?}");
    }
    assert_eq!(g.get(&e.parameters["positive"]).unwrap().to_f64_vec().unwrap(), [1.0, 6.0]);
    assert_eq!(g.get(&e.parameters["negative"]).unwrap().to_f64_vec().unwrap(), [-2.0, -5.0]);
}

#[test]
fn one_scale_for_several_channels_is_refused() {
    let settings = Ternary { scales: Scales::Learned, ..Ternary::default() };
    let w = weight(4, &[3, 6]);
    let mut e = settings.fit(&w, Slot { axis: Some(0), ..Slot::default() }).unwrap();
    for name in ["positive", "negative"] {
        e.parameters.insert(name.into(), Tensor::vector(vec![0.1f32]).tracked().unwrap());
    }
    // The table of one channel fits all of them; the gradient must not look for a scale of the second.
    let refused = simulate(&w.tracked().unwrap(), &annotated(e)).map(|y| y.backward_from(w.detach()).is_err());
    assert!(refused.unwrap_or(true));
}

#[test]
fn gradients_of_learned_scales_are_true_ones() {
    for granularity in [Granularity::Tensor, Granularity::Channel] {
        let settings = Ternary { scales: Scales::Learned, granularity, ..Ternary::default() };
        let w = random::uniform_f64(3, &[4, 6], -1.0, 1.0);
        let e = settings.fit(&w, Slot { axis: Some(0), ..Slot::default() }).unwrap();
        let wide = |name: &str| e.parameters[name].cast(tensor::DType::F64).unwrap();
        let checked = gradcheck::check(&[wide("positive"), wide("negative")], |scales| {
            let mut e = e.clone();
            e.parameters.insert("positive".into(), scales[0].clone());
            e.parameters.insert("negative".into(), scales[1].clone());
            simulate(&w, &annotated(e)).map_err(|e| tensor::TensorError::value("ternary", e.to_string()))
        });
        checked.unwrap();
    }
}

#[test]
fn what_follows_from_the_weight_is_set_anew_and_learned_scales_stay() {
    let (w, other) = (weight(1, &[3, 8]), weight(2, &[3, 8]));
    let slot = Slot { axis: Some(0), ..Slot::default() };
    for settings in choices() {
        let e = settings.fit(&w, slot).unwrap();
        let followed = crate::follow(&other, None, &e, 0.5).unwrap().unwrap();
        let fitted = settings.fit(&other, slot).unwrap().parameters;
        assert_eq!(followed["threshold"], fitted["threshold"]);
        match settings.scales {
            Scales::Weights => assert_eq!(followed, fitted),
            Scales::Learned => {
                assert_eq!(followed["positive"], e.parameters["positive"]);
                let project = crate::project(&e, "positive", &e.parameters["positive"], fitted["positive"].neg().unwrap()).unwrap();
                assert!(project.to_f32_vec().unwrap().iter().all(|p| *p > 0.0));
            }
        }
    }
}

#[test]
fn masked_weights_do_not_count_and_are_zeros() {
    let w = weight(5, &[2, 40]);
    let mask = Tensor::new((0..80).map(|i| i % 4 != 0).collect::<Vec<bool>>(), [2, 40]).unwrap();
    for settings in choices() {
        let live = crate::live(&w, Some(&mask)).unwrap();
        let e = settings.fit(&live, Slot { axis: Some(0), mask: Some(&mask), ..Slot::default() }).unwrap();
        let stored = store(&w, Some(&mask), &e).unwrap();
        let real = crate::read(&stored.data, &stored.decode.encoding().unwrap()).unwrap().to_f32_vec().unwrap();
        assert!(real.iter().enumerate().filter(|(i, _)| i % 4 == 0).all(|(_, v)| v.to_bits() == 0));
        let without = settings.fit(
            &Tensor::new((0..80).filter(|i| i % 4 != 0).map(|i| w.to_f32_vec().unwrap()[i]).collect(), [2, 30]).unwrap(),
            Slot { axis: Some(0), ..Slot::default() },
        );
        assert_eq!(e.parameters, without.unwrap().parameters);
    }
}

#[test]
fn what_is_not_a_weight_is_refused_by_name() {
    let slot = Slot::default();
    assert!(Ternary::default().fit(&Tensor::vector(vec![f32::NAN]), slot).is_err());
    let e = Ternary::default().fit(&Tensor::vector(vec![0f32; 4]), slot).unwrap();
    assert_eq!(simulate(&Tensor::vector(vec![0f32; 4]), &annotated(e.clone())).unwrap(), Tensor::vector(vec![0f32; 4]));
    assert!(store(&Tensor::vector(vec![f32::NAN]), None, &e).is_err());
    assert!(simulate(&Tensor::vector(vec![f32::NAN]), &annotated(e)).unwrap().to_f32_vec().unwrap()[0].is_nan());
    for wrong in ["learned", "threshold_of_mean", "axis"] {
        let error = crate::find(KIND).unwrap().open(&BTreeMap::from([(wrong.to_string(), Setting::Text("x".into()))])).unwrap_err();
        assert!(error.to_string().contains(wrong), "{error}");
    }
}

proptest! {
    #[test]
    fn what_is_stored_is_what_was_simulated(seed in 0u64..500, channels in 1usize..5, columns in 1usize..9, kind in 0usize..12) {
        stored_as_simulated(&choices()[kind], seed, &[channels, columns]);
    }

    #[test]
    fn the_optimal_threshold_is_that_of_trying_all(x in prop::collection::vec(-3f32..3.0, 1..10)) {
        let w = Tensor::vector(x.clone());
        let e = Ternary::default().fit(&w, Slot::default()).unwrap();
        let error = |t: f64, s: f64| x.iter().map(|v| f64::from(*v)).map(|v| if v.abs() > t { (v.abs() - s).powi(2) } else { v * v }).sum::<f64>();
        let of = |name: &str| e.parameters[name].to_f64_vec().unwrap()[0];
        let best = x.iter().map(|m| f64::from(m.abs())).chain([-1.0]).map(|t| {
            let above: Vec<f64> = x.iter().map(|v| f64::from(v.abs())).filter(|v| *v > t).collect();
            error(t, above.iter().sum::<f64>() / above.len().max(1) as f64)
        }).fold(f64::INFINITY, f64::min);
        prop_assert!(error(of("threshold"), of("scale")) <= best * (1.0 + 1e-6) + 1e-9);
    }
}
