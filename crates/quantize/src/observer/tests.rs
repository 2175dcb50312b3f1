use super::*;
use proptest::prelude::*;
use tensor::random;

fn seen<O: Observer>(mut o: O, list: &[Tensor]) -> O {
    list.iter().for_each(|t| o.update(t).unwrap());
    o
}

#[test]
fn a_percentile_leaves_outliers_out() {
    let mut data = random::normal(1, &[100_000], 0.0, 1.0).unwrap().into_vec::<f32>().unwrap();
    data.extend([50.0, -80.0]);
    let t = Tensor::vector(data);
    let (lo, hi) = seen(Percentile::new(99.9), std::slice::from_ref(&t)).range().unwrap();
    // 99.95 % of a normal distribution lie below 3.29.
    assert!((-3.6..-3.1).contains(&lo) && (3.1..3.6).contains(&hi), "{lo} {hi}");
    assert_eq!(seen(Percentile::new(100.0), std::slice::from_ref(&t)).range(), Some((-80.0, 50.0)));
    let (lo, hi) = seen(MeanSquaredError::new(16), std::slice::from_ref(&t)).range().unwrap();
    assert!(lo > -40.0 && hi > 0.0, "{lo} {hi}");
}

#[test]
fn what_has_no_range_is_an_error_and_nothing_is_nothing() {
    for kind in all() {
        let mut o = observer(&ObserverSettings { kind: kind.name.into(), ..Default::default() }, 256).unwrap();
        assert!(o.update(&Tensor::vector(vec![1.0, f32::NAN])).unwrap_err().contains("element 1"), "{}", kind.name);
        assert!(o.update(&Tensor::vector(vec![f32::INFINITY])).is_err());
        assert!(o.update(&Tensor::vector(vec![1i64])).is_err());
        o.update(&Tensor::vector(Vec::<f32>::new())).unwrap();
        assert_eq!(o.range(), None);
        o.update(&Tensor::vector(vec![0f32; 3])).unwrap();
        assert_eq!(o.range(), Some((0.0, 0.0)), "{}", kind.name);
    }
    assert!(observer(&ObserverSettings { kind: "entropie".into(), ..Default::default() }, 256).is_err());
}

#[test]
fn a_constant_has_a_range_that_reaches_it() {
    let c = Tensor::vector(vec![3e30f32; 5]);
    for range in [seen(MinMax::default(), std::slice::from_ref(&c)).range(), seen(Percentile::new(99.0), std::slice::from_ref(&c)).range()]
    {
        assert_eq!(range, Some((3e30, 3e30)));
    }
}

#[test]
fn the_moving_average_starts_at_the_first_batch() {
    let mut o = MovingAverage::new(0.9);
    o.update(&Tensor::vector(vec![-1f32, 1.0])).unwrap();
    assert_eq!(o.range(), Some((-1.0, 1.0)));
    o.update(&Tensor::vector(vec![0f32, 11.0])).unwrap();
    assert_eq!(o.range(), Some((-0.9, 2.0)));
    let mut merged = MovingAverage::new(0.9);
    merged.merge(&o);
    assert_eq!(merged.range(), o.range());
}

proptest! {
    #[test]
    fn histograms_do_not_depend_on_order_or_merging(
        data in prop::collection::vec(prop::collection::vec((-6i32..30, -1f32..1.0), 1..20), 1..6),
    ) {
        let list: Vec<Tensor> = data.into_iter().map(|d| Tensor::vector(d.into_iter().map(|(e, m)| m * 2f32.powi(e)).collect())).collect();
        let mut straight = Histogram::default();
        list.iter().for_each(|t| straight.update(t).unwrap());
        let mut reversed = Histogram::default();
        list.iter().rev().for_each(|t| reversed.update(t).unwrap());
        let mut merged = Histogram::default();
        for t in &list {
            let mut one = Histogram::default();
            one.update(t).unwrap();
            merged.merge(&one);
        }
        prop_assert_eq!(&straight, &reversed);
        prop_assert_eq!(&straight, &merged);
        prop_assert_eq!(straight.total(), list.iter().map(|t| t.len() as u64).sum::<u64>());
    }
}
