//! The gradient by a scale is the same with and without the gradient by the zero point: two loops, one order of sums.
use espalier_tensor::random::uniform;
use espalier_tensor::{Activation, Tensor};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]
    #[test]
    fn scales_alone_get_the_gradients_that_they_get_beside_zero_points(
        dims in proptest::array::uniform3(prop_oneof![1usize..8, 8usize..70]), axis in proptest::option::of(0usize..3), bounded: bool, seed: u64
    ) {
        let (x, dy) = (uniform(seed, &dims, -1.0, 1.0).unwrap(), uniform(seed ^ 1, &dims, -1.0, 1.0).unwrap());
        let n = axis.map_or(1, |axis| dims[axis]);
        let (scale, zero) = (uniform(seed ^ 2, &[n], 0.005, 0.02).unwrap(), uniform(seed ^ 3, &[n], -9.0, 9.0).unwrap().round().unwrap());
        let activation = if bounded { Activation::Clip { min: -0.4, max: 0.7 } } else { Activation::None };
        let run = |scales: bool, zeros: bool| {
            let x = x.tracked().unwrap();
            let scale = if scales { scale.tracked().unwrap() } else { scale.clone() };
            let zero = if zeros { zero.tracked().unwrap() } else { zero.clone() };
            let y = x.fake_quantize_activated(activation, &scale, &zero, axis, -60.0, 30.0).unwrap();
            let mut gradients = y.backward_from(dy.clone()).unwrap();
            let mut bits = |t: &Tensor| gradients.take(t).map(|g| g.to_f32_vec().unwrap().into_iter().map(f32::to_bits).collect::<Vec<_>>());
            [bits(&x), bits(&scale), bits(&zero)]
        };
        let [by_x, by_scale, by_zero] = run(true, true);
        prop_assert!(by_x.is_some() && by_scale.is_some() && by_zero.is_some());
        prop_assert_eq!(run(true, false), [by_x.clone(), by_scale, None]);
        prop_assert_eq!(run(false, true), [by_x.clone(), None, by_zero]);
        prop_assert_eq!(run(false, false), [by_x, None, None]);
    }
}
