use super::*;
use crate::levels::PROGRESS;
use crate::testing::{annotated, slot, stored_as_simulated};
use crate::{simulate, store};
use graph::Annotation;
use proptest::prelude::*;
use tensor::{gradcheck, random};

fn choices() -> Vec<Binary> {
    let mut all = vec![];
    for granularity in [Granularity::Tensor, Granularity::Channel] {
        for estimator in [Estimator::StraightThrough, Estimator::IrNet] {
            all.push(Binary { granularity, estimator });
        }
    }
    all
}

#[test]
fn the_scale_is_the_mean_magnitude() {
    let w = Tensor::new(vec![0.1f32, -0.3, 0.0, 2.0], [2, 2]).unwrap();
    let e = Binary::default().fit(&w, slot()).unwrap();
    assert_eq!(simulate(&w, &annotated(e)).unwrap(), Tensor::new(vec![0.2f32, -0.2, 1.0, 1.0], [2, 2]).unwrap());
    // Centred, the second channel is -1 and 1.
    let e = Binary { estimator: Estimator::IrNet, ..Binary::default() }.fit(&w, slot()).unwrap();
    assert_eq!(simulate(&w, &annotated(e)).unwrap(), Tensor::new(vec![0.2f32, -0.2, -1.0, 1.0], [2, 2]).unwrap());
}

#[test]
fn a_weight_with_a_mask_is_refused_by_name() {
    let w = Tensor::vector(vec![1f32, 2.0]);
    let mask = Tensor::vector(vec![true, false]);
    for settings in choices() {
        let error = settings.fit(&w, Slot { mask: Some(&mask), ..slot() }).unwrap_err().to_string();
        assert!(error.contains("binary per") && error.contains("ternary"), "{error}");
        let e = settings.fit(&w, Slot::default()).unwrap();
        assert!(simulate(&w, &Annotation { mask: Some(mask.clone()), encoding: Some(e.clone()) }).is_err());
        assert!(store(&w, Some(&mask), &e).is_err());
    }
}

#[test]
fn the_straight_gradient_ends_at_one() {
    let w = Tensor::vector(vec![-1.5f64, -0.5, 0.5, 1.0]).tracked().unwrap();
    let e = Binary::default().fit(&w.detach(), Slot::default()).unwrap();
    let g = simulate(&w, &annotated(e)).unwrap().backward_from(Tensor::vector(vec![1f64, 2.0, 3.0, 4.0])).unwrap();
    assert_eq!(g.get(&w).unwrap().to_f64_vec().unwrap(), [0.0, 2.0, 3.0, 4.0]);
}

/// The surrogate whose true gradient IR-Net takes: `s k tanh(t z)` of the standardized weight `z`, of rows.
fn surrogate(w: &Tensor, rows: usize, scale: &[f64], progress: f64) -> tensor::Result<Tensor> {
    let t = 10f64.powf(-2.0 + 3.0 * progress);
    let flat = w.reshape([rows, w.len() / rows])?;
    let n = (w.len() / rows) as f64;
    let centred = flat.sub(&flat.mean(&[1], true)?)?;
    let variance = centred.mul(&centred)?.mean(&[1], true)?.mul_scalar(n / (n - 1.0))?;
    let z = centred.div(&variance.sqrt()?)?;
    let scale = Tensor::new(scale.to_vec(), [rows, 1])?;
    z.mul_scalar(t)?.tanh()?.mul_scalar((1.0 / t).max(1.0))?.mul(&scale)?.reshape(w.shape())
}

#[test]
fn ir_net_s_gradient_is_that_of_its_hyperbolic_tangent() {
    for granularity in [Granularity::Tensor, Granularity::Channel] {
        for progress in [0.0, 0.4, 0.7, 1.0] {
            let settings = Binary { granularity, estimator: Estimator::IrNet };
            let w = random::uniform_f64(7, &[3, 5], -1.0, 1.0);
            let mut e = settings.fit(&w, slot()).unwrap();
            e.parameters = crate::follow(&w, None, &e, progress).unwrap().unwrap();
            let told = e.parameters[PROGRESS].to_f64_vec().unwrap()[0];
            assert!((told - progress).abs() < 1e-6);
            let rows = if granularity == Granularity::Tensor { 1 } else { 3 };
            let scale = e.parameters["scale"].to_f64_vec().unwrap();
            gradcheck::check(std::slice::from_ref(&w), |w| surrogate(&w[0], rows, &scale, told)).unwrap();
            let dy = random::uniform_f64(8, &[3, 5], 0.5, 1.5);
            let gradient = |y: Tensor, w: &Tensor| y.backward_from(dy.clone()).unwrap().get(w).unwrap().to_f64_vec().unwrap();
            let tracked = w.tracked().unwrap();
            let ours = gradient(simulate(&tracked, &annotated(e)).unwrap(), &tracked);
            let wanted = gradient(surrogate(&tracked, rows, &scale, told).unwrap(), &tracked);
            assert!(ours.iter().zip(&wanted).all(|(a, b)| (a - b).abs() < 1e-9 * b.abs().max(1.0)), "{progress}: {ours:?} {wanted:?}");
        }
    }
}

#[test]
fn what_is_not_a_weight_is_refused_by_name() {
    assert!(Binary::default().fit(&Tensor::vector(vec![f32::INFINITY]), Slot::default()).is_err());
    for wrong in ["estimator", "axis"] {
        let error = crate::find(KIND).unwrap().open(&BTreeMap::from([(wrong.to_string(), Setting::Text("x".into()))])).unwrap_err();
        assert!(error.to_string().contains(wrong), "{error}");
    }
}

proptest! {
    #[test]
    fn what_is_stored_is_what_was_simulated(seed in 0u64..500, channels in 1usize..5, columns in 1usize..9, kind in 0usize..4) {
        stored_as_simulated(&choices()[kind], seed, &[channels, columns]);
    }
}
