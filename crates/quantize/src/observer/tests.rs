use super::*;
use encodings::affine::fit_range;
use ops::ChannelAxis;
use proptest::prelude::*;
use tensor::random;

fn seen(list: &[Tensor]) -> Statistics {
    let mut s = Statistics::new(0.9);
    list.iter().for_each(|t| s.update(t).unwrap());
    s
}

fn min_max(s: &Statistics) -> Option<(f32, f32)> {
    MinMax {}.range(s, &grid(8))
}

fn moving_average(s: &Statistics) -> Option<(f32, f32)> {
    MovingAverage::default().range(s, &grid(8))
}

fn percentile(s: &Statistics, percent: f64) -> Option<(f32, f32)> {
    Percentile { percent }.range(s, &grid(8))
}

fn entropy(s: &Statistics, grid: &AffineSettings) -> Option<(f32, f32)> {
    Entropy {}.range(s, grid)
}

fn mse(s: &Statistics, grid: &AffineSettings) -> Option<(f32, f32)> {
    Mse {}.range(s, grid)
}

fn all() -> Vec<Choice<Observers>> {
    Observers::members().iter().map(|entry| Choice::known(entry.manual.name)).collect()
}

fn grid(bits: u32) -> AffineSettings {
    AffineSettings::activation(bits)
}

/// A heavy-tailed sample behind a ReLU: a third zeros, most of the rest small, a few large.
fn tailed(n: usize) -> Vec<f32> {
    let x = random::normal(7, &[n], 0.4, 1.0).unwrap().into_vec::<f32>().unwrap();
    x.iter().enumerate().map(|(i, v)| v.max(0.0) * if i % 500 == 0 { 8.0 } else { 1.0 }).collect()
}

#[test]
fn a_percentile_leaves_outliers_out() {
    let mut data = random::normal(1, &[100_000], 0.0, 1.0).unwrap().into_vec::<f32>().unwrap();
    data.extend([50.0, -80.0]);
    let s = seen(&[Tensor::vector(data.clone())]);
    // Sorted: 50 elements are cut on either side; a bin is 1/16 wide.
    data.sort_by(f32::total_cmp);
    let (lo, hi) = percentile(&s, 99.9).unwrap();
    let (low, high) = (data[50], data[data.len() - 51]);
    assert!((0.0..=0.0625).contains(&(low - lo)) && (0.0..=0.0625).contains(&(hi - high)), "{lo} {low} {hi} {high}");
    assert_eq!(percentile(&s, 100.0), Some((-80.0, 50.0)));
}

#[test]
fn min_max_is_the_range_of_all_elements() {
    let data = tailed(5000);
    let s = seen(&[Tensor::vector(data[..100].to_vec()), Tensor::vector(data[100..].to_vec())]);
    let largest = data.iter().fold(0f32, |a, v| a.max(*v));
    assert_eq!(min_max(&s), Some((0.0, largest)));
}

#[test]
fn the_moving_average_starts_at_the_first_batch() {
    let mut s = seen(&[Tensor::vector(vec![-1f32, 1.0])]);
    assert_eq!(moving_average(&s), Some((-1.0, 1.0)));
    let data = tailed(4000);
    let (mut lo, mut hi) = (-1f64, 1f64);
    for piece in data.chunks(100) {
        s.update(&Tensor::vector(piece.to_vec())).unwrap();
        let bounds = piece.iter().fold((f32::MAX, f32::MIN), |(a, b), v| (a.min(*v), b.max(*v)));
        (lo, hi) = (0.9 * lo + 0.1 * f64::from(bounds.0), 0.9 * hi + 0.1 * f64::from(bounds.1));
    }
    let (a, b) = moving_average(&s).unwrap();
    assert!((f64::from(a) - lo).abs() < 1e-6 && (f64::from(b) - hi).abs() < 1e-6 * hi, "{a} {lo} {b} {hi}");
}

/// Mean of squared errors of the elements themselves, each rounded to the nearest number of the range's grid.
fn brute_force_error(data: &[f32], (lo, hi): (f32, f32), grid: &AffineSettings) -> f64 {
    let encoding = fit_range(lo, hi, grid).unwrap();
    let number = |name: &str| f64::from(encoding.parameters[name].item::<f32>().unwrap());
    let (scale, zero) = (number("scale"), number("zero_point"));
    let numbers: Vec<f64> = (grid.qmin()..=grid.qmax()).map(|q| (q as f64 - zero) * scale).collect();
    let nearest = |x: f64| numbers.iter().map(|g| (x - g).powi(2)).fold(f64::INFINITY, f64::min);
    data.iter().map(|v| nearest(f64::from(*v))).sum::<f64>() / data.len() as f64
}

#[test]
fn mse_is_as_good_as_trying_every_range_on_the_elements() {
    let data = tailed(3000);
    let s = seen(&[Tensor::vector(data.clone())]);
    for bits in [2, 3, 4, 6] {
        let found = brute_force_error(&data, mse(&s, &grid(bits)).unwrap(), &grid(bits));
        let whole = min_max(&s).unwrap();
        let tried = (1..=300).map(|i| brute_force_error(&data, (0.0, whole.1 * i as f32 / 300.0), &grid(bits)));
        let best = tried.fold(f64::INFINITY, f64::min);
        assert!(found <= 1.02 * best, "{bits} bits: {found}, best {best}");
        assert!(bits > 4 || found < 0.9 * brute_force_error(&data, whole, &grid(bits)), "{bits} bits: nothing was clipped");
    }
}

/// The divergence as the method is described, on a list of bins, nothing shared with the observer.
fn brute_force_divergence(bins: &[f64], kept: usize, levels: usize) -> f64 {
    let mut p = bins[..kept].to_vec();
    p[kept - 1] += bins[kept..].iter().sum::<f64>();
    let mut q = vec![0.0; kept];
    let level_of = |bin: usize| (0..levels).find(|l| bin < (l + 1) * kept / levels).unwrap();
    for bin in (0..kept).filter(|bin| p[*bin] > 0.0) {
        let mates: Vec<usize> = (0..kept).filter(|b| level_of(*b) == level_of(bin)).collect();
        let live = mates.iter().filter(|b| p[**b] > 0.0).count() as f64;
        q[bin] = (mates.iter().map(|b| bins[*b]).sum::<f64>() / live).max(1e-4);
    }
    let (all, inside) = (p.iter().sum::<f64>(), bins[..kept].iter().sum::<f64>());
    (0..kept).filter(|i| p[*i] > 0.0).map(|i| p[i] / all * ((p[i] / all) / (q[i] / inside)).ln()).sum()
}

#[test]
fn entropy_takes_the_threshold_of_the_smallest_divergence() {
    let data = tailed(20_000);
    let s = seen(&[Tensor::vector(data.clone())]);
    // A bin is the power of two that puts the largest element into the upper half of 2,048 bins; zeros do not count.
    let largest = data.iter().fold(0f32, |a, v| a.max(*v));
    let mut width = 1f32;
    while largest / width < 1024.0 {
        width /= 2.0;
    }
    let all = (largest / width) as usize + 1;
    let mut bins = vec![0.0; all];
    data.iter().filter(|v| **v > 0.0).for_each(|v| bins[(v / width) as usize] += 1.0);
    for bits in [4, 5] {
        let (lo, hi) = entropy(&s, &grid(bits)).unwrap();
        let costs = (1..=all).rev().step_by(all.div_ceil(128)).filter(|kept| *kept >= 1 << bits);
        let costs = costs.map(|kept| (brute_force_divergence(&bins, kept, 1 << bits), kept));
        let best = costs.min_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
        assert_eq!((lo, hi), (0.0, largest.min(best.1 as f32 * width)), "{bits} bits");
        assert!(hi < 0.8 * largest, "{bits} bits: {hi} of {largest}");
    }
    assert_eq!(entropy(&s, &grid(16)), Some((0.0, largest)), "a grid finer than the histogram clips nothing");
}

#[test]
fn a_range_is_clipped_by_magnitude_and_never_widened() {
    let mut data = random::uniform(3, &[50_000], -0.25, 2.0).unwrap().into_vec::<f32>().unwrap();
    data.push(40.0);
    let s = seen(&[Tensor::vector(data)]);
    for conclude in [entropy, mse] {
        let (lo, hi) = conclude(&s, &grid(5)).unwrap();
        assert!(lo == min_max(&s).unwrap().0 && (1.0..20.0).contains(&hi), "{lo} {hi}");
    }
}

#[test]
fn what_has_no_range_is_an_error_and_nothing_is_nothing() {
    for kind in all() {
        let range = |s: &Statistics| kind.range(s, &grid(8));
        let mut s = Statistics::new(0.9);
        assert!(s.update(&Tensor::vector(vec![1.0, f32::NAN])).unwrap_err().contains("element 1"), "{}", kind.kind());
        assert!(s.update(&Tensor::vector(vec![f32::INFINITY])).is_err());
        assert!(s.update(&Tensor::vector(vec![1i64])).is_err());
        s.update(&Tensor::vector(Vec::<f32>::new())).unwrap();
        assert_eq!(range(&s), None);
        s.update(&Tensor::vector(vec![0f32; 3])).unwrap();
        assert_eq!(range(&s), Some((0.0, 0.0)), "{}", kind.kind());
    }
    assert!(Choice::<Observers>::named("entropie").unwrap_err().to_string().contains("did you mean 'entropy'?"));
}

#[test]
fn extreme_values_keep_their_range() {
    for c in [3e30f32, f32::MAX, 1e-42, -1e-30] {
        let s = seen(&[Tensor::vector(vec![c; 5])]);
        assert_eq!(min_max(&s), Some((c, c)));
        for kind in all() {
            let (lo, hi) = kind.range(&s, &grid(8)).unwrap();
            // A magnitude below the finest bin is clipped to that bin's edge at most.
            assert!(lo <= c.max(0.0) && hi >= c.min(0.0) && lo <= hi, "{}: {lo} {hi}", kind.kind());
        }
    }
}

#[test]
fn long_tensors_are_counted_by_several_threads_to_the_same_end() {
    let data = random::normal(5, &[300_000], 0.0, 1.0).unwrap().into_vec::<f32>().unwrap();
    let mut pieces = Histogram::default();
    let all = seen(&[Tensor::vector(data.clone())]);
    data.chunks(1000).for_each(|piece| pieces.merge(seen(&[Tensor::vector(piece.to_vec())]).histogram()));
    assert_eq!(all.histogram(), &pieces);
}

proptest! {
    #[test]
    fn merged_statistics_are_those_of_one_pass(
        data in prop::collection::vec(prop::collection::vec((-140i32..120, -1f32..1.0), 1..20), 1..6), cut in 0usize..6,
    ) {
        let power = |e: i32| 2f64.powi(e);
        let list: Vec<Tensor> = data.into_iter()
            .map(|d| Tensor::vector(d.into_iter().map(|(e, m)| (f64::from(m) * power(e)) as f32).collect())).collect();
        let straight = seen(&list);
        let cut = cut.min(list.len());
        let mut merged = seen(&list[..cut]);
        merged.merge(&seen(&list[cut..]));
        prop_assert_eq!(straight.histogram(), merged.histogram());
        let (a, b) = (straight.average().range().unwrap(), merged.average().range().unwrap());
        // The order of additions differs by the last bits of the largest batch's range.
        let (lo, hi) = min_max(&straight).unwrap();
        let tolerance = 1e-6 * lo.abs().max(hi.abs());
        prop_assert!((a.0 - b.0).abs() <= tolerance && (a.1 - b.1).abs() <= tolerance, "{:?} {:?}", a, b);
        let reversed = seen(&list.iter().rev().cloned().collect::<Vec<_>>());
        prop_assert_eq!(straight.histogram(), reversed.histogram());
        prop_assert_eq!(straight.histogram().total(), list.iter().map(|t| t.len() as u64).sum::<u64>());
        let text = serde_json::to_string(&straight).unwrap();
        prop_assert_eq!(serde_json::from_str::<Statistics>(&text).unwrap(), straight);
    }
}

#[test]
fn every_observer_has_a_page_an_example_that_parses_and_one_check() {
    #[derive(serde::Deserialize)]
    struct Example {
        calibration: Calibration,
    }
    #[derive(serde::Deserialize)]
    struct Calibration {
        observer: Choice<Observers>,
    }
    for entry in Observers::members() {
        let manual = entry.manual;
        assert!(!manual.summary.is_empty() && !manual.details.is_empty(), "{}", manual.name);
        let example: Example = toml::from_str(manual.example).unwrap();
        assert_eq!(example.calibration.observer.kind(), manual.name);
    }
    assert_eq!(Choice::<Observers>::default().candidates().len(), Observers::members().len() - 1);
    for (settings, path) in [
        (r#"{ "kind": "percentile", "percent": 50 }"#, "percent = 50:"),
        (r#"{ "kind": "moving_average", "momentum": 1 }"#, "momentum = 1:"),
        (r#"{ "kind": "auto", "among": [] }"#, "among has to name"),
        (r#"{ "kind": "auto", "among": ["mse", "auto"] }"#, "among has to name"),
        (r#"{ "kind": "auto", "held": 0 }"#, "held = 0"),
        (r#"{ "kind": "min_max", "percent": 99 }"#, "unknown field `percent`"),
    ] {
        let error = serde_json::from_str::<Choice<Observers>>(settings).unwrap_err().to_string();
        assert!(error.starts_with(path), "{settings}: {error}");
    }
}

#[test]
fn channels_have_maxima_where_all_tensors_agree_on_them() {
    let image = |v: Vec<f32>| Tensor::new(v, [1, 2, 1, 2]).unwrap();
    let list = [image(vec![1.0, 2.0, -3.0, -4.0]), image(vec![0.0, 5.0, -6.0, -7.0])];
    let both = seen(&list);
    assert_eq!(both.largest(ChannelAxis::Second), [5.0, -3.0]);
    // What a product reads along the last axis is not known.
    assert!(both.largest(ChannelAxis::Last).is_empty());
    let mut merged = seen(&list[..1]);
    merged.merge(&seen(&list[1..]));
    assert_eq!(merged, both);
    let rows = seen(&[Tensor::new(vec![1f32, 2.0, 3.0, 0.0], [2, 2]).unwrap()]);
    assert_eq!((rows.largest(ChannelAxis::Last), rows.largest(ChannelAxis::Second)), (&[3.0f32, 2.0][..], &[][..]));
    merged.merge(&rows);
    assert!(merged.largest(ChannelAxis::Second).is_empty() && merged.largest(ChannelAxis::Last).is_empty());
}
