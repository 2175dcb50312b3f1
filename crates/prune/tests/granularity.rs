//! Patterns and groups on networks from the zoo.
use espalier_prune::{Filter, Granularity, NofM, PruneSettings, Units, candidates, prune, sensitivity};
use graph::Model;
use proptest::prelude::*;
use technique::Choice;

fn model(name: &str) -> Model {
    let entry = zoo::find(name).unwrap();
    entry.build(&entry.default_options()).unwrap()
}

fn settings(sparsity: Option<f64>, granularity: &str) -> PruneSettings {
    PruneSettings { sparsity, granularity: serde_json::from_str(granularity).unwrap(), ..PruneSettings::of_pattern() }
}

fn live(m: &Model, id: graph::ValueId) -> Vec<bool> {
    m.annotations.mask(id).unwrap().as_slice::<bool>().unwrap().to_vec()
}

#[test]
fn two_of_four_input_channels_live_at_each_place_and_the_stem_stays_dense() {
    let mut m = model("resnet8");
    let before = m.clone();
    let report = prune(&mut m, &settings(None, r#""n_m""#)).unwrap();
    let names: Vec<&str> = report.dense.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["conv1.weight"]);
    for candidate in candidates(&m, &[]).unwrap().iter().filter(|c| c.name != "conv1.weight") {
        let Units::Blocks { of, keep } = NofM::default().units(candidate) else { panic!("{}", candidate.name) };
        let (mask, weight) = (live(&m, candidate.weight), before.values.tensor(candidate.weight).unwrap().to_f32_vec().unwrap());
        let count = of.iter().max().unwrap() + 1;
        let mut blocks = vec![(vec![], vec![]); count];
        for (i, block) in of.iter().enumerate() {
            let side = &mut blocks[*block];
            if mask[i] { side.0.push(weight[i].abs()) } else { side.1.push(weight[i].abs()) }
        }
        for (kept, dead) in blocks {
            assert_eq!((kept.len(), dead.len()), (keep, 2), "{}", candidate.name);
            // A normalization scales a whole output, so the order within a block is that of the plain weights.
            assert!(kept.iter().all(|k| dead.iter().all(|d| d <= k)));
        }
    }
}

#[test]
fn a_short_last_block_keeps_as_many_as_a_whole_one() {
    let entry = zoo::find("mlp").unwrap();
    let mut m = entry.build(&zoo::ZooOptions { input: vec![1, 2, 5], ..entry.default_options() }).unwrap();
    prune(&mut m, &settings(Some(0.75), r#"{ "kind": "n_m", "n": 2, "m": 8 }"#)).unwrap();
    let first = candidates(&m, &[]).unwrap().remove(0);
    let view = first.view.clone().unwrap();
    assert_eq!(view.inputs, 10);
    let mut kept = vec![[0; 2]; view.outputs];
    for (i, live) in live(&m, first.weight).into_iter().enumerate() {
        let (output, input, _) = view.at(i);
        kept[output][input / 8] += usize::from(live);
    }
    assert!(kept.iter().all(|k| *k == [2, 2]));
}

#[test]
fn a_pattern_and_the_sparsity_must_agree() {
    let fault = settings(Some(0.6), r#"{ "kind": "n_m", "n": 2, "m": 4 }"#).check().unwrap_err();
    assert_eq!(fault.path, ["sparsity"]);
    assert!(
        fault.what.starts_with("sparsity = 0.6 does not agree with granularity n_m") && fault.what.ends_with("which makes 0.5"),
        "{fault}"
    );
    settings(Some(0.5), r#"{ "kind": "n_m", "n": 2, "m": 4 }"#).check().unwrap();
    assert_eq!(settings(None, r#""filter""#).check().unwrap_err().path, ["sparsity"]);
    let rates = Choice::with("rates", &serde_json::json!({ "others": 0.5 })).unwrap();
    let both = PruneSettings { scope: rates, ..settings(None, r#""n_m""#) };
    assert_eq!(both.check().unwrap_err().path, ["scope"]);
}

#[test]
fn groups_die_as_a_whole_and_their_elements_are_counted() {
    for kind in ["filter", "kernel", "row", "column", r#"{ "kind": "block", "rows": 4, "columns": 2 }"#] {
        let kind = if kind.starts_with('{') { kind.to_string() } else { format!("\"{kind}\"") };
        let settings = settings(Some(0.4), &kind);
        let mut m = model("resnet8");
        let report = prune(&mut m, &settings).unwrap();
        let mut largest = 0;
        for candidate in candidates(&m, &[]).unwrap() {
            let Units::Groups(of) = settings.granularity.units(&candidate) else { panic!("{kind}") };
            let mask = live(&m, candidate.weight);
            let mut groups = vec![(0, 0); of.iter().max().unwrap() + 1];
            of.iter().zip(&mask).for_each(|(g, live)| if *live { groups[*g].0 += 1 } else { groups[*g].1 += 1 });
            assert!(groups.iter().all(|(live, dead)| *live == 0 || *dead == 0), "{kind} {}", candidate.name);
            largest = largest.max(groups.iter().map(|(a, b)| a + b).max().unwrap());
        }
        let missed = (report.sparsity - 0.4).abs() * report.total() as f64;
        assert!(missed <= largest as f64, "{kind}: {} of groups of {largest}", report.sparsity);
    }
}

#[test]
fn filters_of_least_norm_go_first() {
    let mut m = model("lenet5");
    let filter = Filter::default();
    let first = candidates(&m, &[]).unwrap().remove(0);
    let Units::Groups(of) = filter.units(&first) else { panic!() };
    let weight = m.values.tensor(first.weight).unwrap().to_f32_vec().unwrap();
    let mut norms = vec![0f64; of.iter().max().unwrap() + 1];
    of.iter().zip(&weight).for_each(|(g, w)| norms[*g] += f64::from(*w).powi(2));
    prune(&mut m, &PruneSettings { scope: Choice::named("layer").unwrap(), ..settings(Some(0.5), r#""filter""#) }).unwrap();
    let mask = live(&m, first.weight);
    let dead: Vec<bool> = (0..norms.len()).map(|g| !mask[of.iter().position(|o| *o == g).unwrap()]).collect();
    assert_eq!(dead.iter().filter(|d| **d).count(), norms.len() / 2);
    let most = norms.iter().zip(&dead).filter(|(_, d)| **d).map(|(n, _)| *n).fold(0.0, f64::max);
    assert!(norms.iter().zip(&dead).all(|(n, d)| *d || *n >= most));
}

#[test]
fn groups_keep_what_is_masked_already() {
    let mut m = model("resnet8");
    prune(&mut m, &PruneSettings::new(0.3)).unwrap();
    let before = m.clone();
    let report = prune(&mut m, &settings(None, r#""n_m""#)).unwrap();
    for c in candidates(&m, &[]).unwrap() {
        let revived = live(&before, c.weight).into_iter().zip(live(&m, c.weight)).filter(|(was, is)| !was && *is).count();
        assert_eq!(revived, 0, "{}", c.name);
    }
    assert!(report.sparsity > 0.5);
}

#[test]
fn a_share_of_each_layer_is_kept_whatever_its_importance() {
    let mut m = model("resnet8");
    let settings = PruneSettings { min_per_layer: 0.25, ..settings(Some(0.7), r#""filter""#) };
    let report = prune(&mut m, &settings).unwrap();
    assert!(report.layers.iter().all(|l| l.total - l.zeros >= l.total / 4), "{report:?}");
    assert_eq!(report.emptied, Vec::<String>::new());
}

/// The weights of the blocks of ResNet-20, and how many of each block live.
fn blocks_of_resnet20(m: &Model) -> Vec<Vec<(String, usize, usize)>> {
    let mut blocks = std::collections::BTreeMap::<String, Vec<(String, usize, usize)>>::new();
    for c in candidates(m, &[]).unwrap().into_iter().filter(|c| c.name.starts_with("layer")) {
        let mask = live(m, c.weight);
        let block: Vec<&str> = c.name.split('.').take(2).collect();
        let lives = mask.iter().filter(|l| **l).count();
        blocks.entry(block.join(".")).or_default().push((c.name, lives, mask.len()));
    }
    blocks.into_values().collect()
}

#[test]
fn a_residual_block_dies_over_all_its_layers() {
    let mut m = model("resnet20");
    let report = prune(&mut m, &settings(Some(0.4), r#""residual_block""#)).unwrap();
    let blocks = blocks_of_resnet20(&m);
    assert!(blocks.len() == 9 && blocks.iter().all(|b| b.len() == 2), "{blocks:?}");
    let mut gone = 0;
    for block in &blocks {
        let lives: Vec<bool> = block.iter().map(|(_, lives, _)| *lives > 0).collect();
        assert!(lives[0] == lives[1] && block.iter().all(|(_, lives, all)| [0, *all].contains(lives)), "{block:?}");
        gone += usize::from(!lives[0]);
    }
    // Blocks are of 4608, 13824, 18432, 55296 and 73728 weights.
    assert!(gone > 0 && (report.sparsity - 0.4).abs() * report.total() as f64 <= 73728.0 / 2.0, "{}", report.sparsity);
    let dense: Vec<&str> = report.dense.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(dense, ["conv1.weight", "linear.weight"]);
    assert!(
        report.emptied.is_empty() && report.notes[0].starts_with(&format!("{} of 9 residual blocks are left, gone: ", 9 - gone)),
        "{report:?}"
    );
    // The least mean square goes first, whatever the layers of a block have each.
    let mean = |m: &Model, block: &[(String, usize, usize)]| {
        let all: Vec<f32> =
            block.iter().flat_map(|(name, ..)| m.values.tensor(m.find(name).unwrap()).unwrap().to_f32_vec().unwrap()).collect();
        all.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>() / all.len() as f64
    };
    // BatchNormalization scales are all alike here, so the order is that of the plain weights; a block too large for the rest is passed over.
    for (dead, lives) in blocks.iter().flat_map(|a| blocks.iter().map(move |b| (a, b))).filter(|(a, b)| a[0].1 == 0 && b[0].1 > 0) {
        let size = |block: &[(String, usize, usize)]| block.iter().map(|(_, _, all)| all).sum::<usize>();
        assert!(size(dead) < size(lives) || mean(&m, dead) <= mean(&m, lives), "{dead:?} {lives:?}");
    }
}

#[test]
fn a_block_with_a_weight_that_stays_dense_stays() {
    let skip = vec!["layer3.1.conv2.weight".to_string()];
    let mut m = model("resnet20");
    let report = prune(&mut m, &PruneSettings { skip, ..settings(Some(0.99), r#""residual_block""#) }).unwrap();
    assert!(report.notes[0].starts_with("0 of 8 residual blocks are left"), "{report:?}");
    let why = report.dense.iter().find(|(name, _)| name == "layer3.1.conv1.weight").map(|(_, why)| why.as_str());
    assert_eq!(why, Some("it goes with 'layer3.1.conv2.weight', which stays dense"));
    assert!(m.annotations.mask(m.find("layer3.1.conv1.weight").unwrap()).is_none());
    let least = PruneSettings { min_per_layer: 0.05, ..settings(Some(0.4), r#""residual_block""#) };
    assert_eq!(least.check().unwrap_err().path, ["min_per_layer"]);
    let least = PruneSettings { min_per_layer: 0.05, ..settings(Some(0.4), r#""layer""#) };
    assert_eq!(least.check().unwrap_err().path, ["min_per_layer"]);
}

#[test]
fn elements_masked_before_count_in_the_mean_of_a_block() {
    // A block of which half is masked already has the least mean square over all its elements, not over those that live.
    let mut m = model("resnet20");
    let list: Vec<_> = candidates(&m, &[]).unwrap();
    for c in &list {
        let shape = m.values.tensor(c.weight).unwrap().shape().to_vec();
        let size = if c.name.starts_with("layer1.2.") { 0.45f32 } else { 0.5 };
        m.values.set_tensor(c.weight, tensor::Tensor::full(size, shape.clone()).unwrap());
        if c.name == "layer1.1.conv2.weight" {
            let live = (0..shape.iter().product::<usize>()).map(|i| i % 10 == 0).collect::<Vec<bool>>();
            m.annotations.entry(c.weight).mask = Some(tensor::Tensor::new(live, shape).unwrap());
        }
    }
    let report = prune(&mut m, &settings(Some(0.02), r#""residual_block""#)).unwrap();
    assert!(report.notes[0].contains("gone: layer1.1.conv1.weight + layer1.1.conv2.weight"), "{:?}", report.notes);
}

#[test]
fn a_schedule_goes_on_from_the_blocks_that_are_gone() {
    let mut m = model("resnet20");
    let shares = [0.2, 0.45, 0.7].map(|share| prune(&mut m, &settings(Some(share), r#""residual_block""#)).unwrap());
    // A criterion that prunes in many rounds.
    let mut gradual = model("resnet20");
    let steps = PruneSettings { criterion: Choice::named("synflow").unwrap(), ..settings(Some(0.4), r#""residual_block""#) };
    let report = prune(&mut gradual, &steps).unwrap();
    assert!((report.sparsity - 0.4).abs() * report.total() as f64 <= 73728.0 / 2.0, "{}", report.sparsity);
    let left: Vec<usize> = shares.iter().map(|r| r.notes[0].split(' ').next().unwrap().parse().unwrap()).collect();
    assert!(left.is_sorted_by(|a, b| a > b), "{left:?}");
    for (report, share) in shares.iter().zip([0.2, 0.45, 0.7]) {
        assert_eq!(report.dense, shares[0].dense);
        assert!((report.sparsity - share).abs() * report.total() as f64 <= 73728.0 / 2.0, "{} {share}", report.sparsity);
    }
}

#[test]
fn a_shortcut_with_a_convolution_is_no_branch() {
    let mut m = model("resnet8");
    let report = prune(&mut m, &settings(Some(0.999), r#""residual_block""#)).unwrap();
    let dense: Vec<&str> = report.dense.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(dense, ["conv1.weight", "layer2.shortcut.weight", "layer3.shortcut.weight", "linear.weight"]);
    assert!(report.notes[0].starts_with("0 of 3 residual blocks are left"), "{report:?}");
    // Only what lies in no branch is left of the network.
    let sample = [("input".to_string(), tensor::Tensor::zeros(tensor::DType::F32, &[1, 3, 32, 32]).unwrap())].into();
    let sums = |m: &Model| {
        m.graph.nodes.iter().filter(|n| ops::summands(n).is_some_and(|[_, b]| m.constant(n.input(b).unwrap()).is_none())).count()
    };
    assert_eq!(sums(&m), 3);
    assert_eq!(espalier_prune::channels::drop_branches(&mut m, &sample).unwrap(), 3);
    assert_eq!(sums(&m), 0);
    assert_eq!(candidates(&m, &[]).unwrap().len(), 4);
}

#[test]
fn blocks_are_compared_in_the_whole_network() {
    let layer = PruneSettings { scope: Choice::named("layer").unwrap(), ..settings(Some(0.4), r#""residual_block""#) };
    assert_eq!(layer.check().unwrap_err().path, ["scope"]);
    let whole = settings(Some(0.4), r#""residual_block""#);
    let alone = sensitivity(&model("resnet20"), &whole, &[0.5], None, None, std::iter::empty(), &mut |_, _| {}).unwrap_err();
    assert!(alone.to_string().contains("each layer is measured alone"), "{alone}");
    let mut m = model("lenet5");
    let none = prune(&mut m, &settings(Some(0.4), r#""residual_block""#)).unwrap_err();
    assert!(none.to_string().contains("the network has no residual blocks"), "{none}");
}

#[test]
fn each_scope_gives_its_shares() {
    for (scope, sparsity) in [
        (r#""erk""#, Some(0.8)),
        (r#""uniform_plus""#, Some(0.8)),
        (r#"{ "kind": "rates", "rates": [{ "weights": "layer1.*", "sparsity": 0.5 }], "others": 0.25 }"#, None),
    ] {
        let mut m = model("resnet8");
        let settings = PruneSettings { scope: serde_json::from_str(scope).unwrap(), ..settings(sparsity, r#""element""#) };
        let report = prune(&mut m, &settings).unwrap();
        let share = |name: &str| report.layers.iter().find(|l| l.name == name).unwrap_or_else(|| panic!("{report:?}")).sparsity;
        match sparsity {
            Some(s) => {
                assert!((report.sparsity - s).abs() < 1e-3, "{scope}: {}", report.sparsity);
                assert!(share("conv1.weight") < 0.2 && share("linear.weight") <= 0.8001, "{scope}: {report:?}");
            }
            None => assert!((share("layer1.conv1.weight") - 0.5).abs() < 1e-3 && (share("linear.weight") - 0.25).abs() < 1e-2),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn sparsity_never_revives_and_is_met_for_any_group(low in 0.05f64..0.5, more in 0.05f64..0.4, which in 0usize..3) {
        let kind = [r#""kernel""#, r#"{ "kind": "block", "rows": 2, "columns": 3 }"#, r#""column""#][which];
        let mut m = model("lenet5");
        prune(&mut m, &settings(Some(low), kind)).unwrap();
        let before = m.clone();
        let report = prune(&mut m, &settings(Some(low + more), kind)).unwrap();
        prop_assert!((report.sparsity - low - more).abs() < 0.03, "{} for {}", report.sparsity, low + more);
        for c in candidates(&m, &[]).unwrap() {
            prop_assert!(live(&before, c.weight).into_iter().zip(live(&m, c.weight)).all(|(was, is)| was || !is));
        }
    }
}
