//! Patterns and groups of zeros hold, bit for bit, through every later stage and in the deployed file.
use graph::Model;
use std::collections::BTreeMap;
use technique::Choice;
use test_support::recipe::{DEPLOY_REFERENCE, QUANTIZE, RESNET8, TRAIN, on_digits};
use test_support::runs::{Run, run};

/// The masks of a stage's result, by the names of the weights.
fn masks(m: &Model) -> BTreeMap<String, Vec<bool>> {
    let masks =
        m.annotations.iter().filter_map(|(id, a)| Some((m.values[id].name.clone(), a.mask.as_ref()?.as_slice::<bool>().ok()?.to_vec())));
    masks.collect()
}

/// Which elements of the weights of convolutions and matrix layers are zero, in the order of the nodes: of floats, or of integers whose
/// zero point is 0.
fn zeros(m: &Model) -> Vec<Vec<bool>> {
    let mut found = vec![];
    for node in m.graph.nodes.iter().filter(|n| n.op_type == "Conv" || n.op_type == "Gemm") {
        let id = node.input(1).unwrap();
        if let Some(weight) = m.values.tensor(id) {
            found.push(weight.to_f32_vec().unwrap().iter().map(|w| *w == 0.0).collect());
            continue;
        }
        let decode = &m.graph.nodes[m.graph.producer(id).unwrap()];
        assert_eq!(decode.op_type, "DequantizeLinear");
        let integers = |i: usize| decode.input(i).map(|id| m.values.tensor(id).unwrap().to_i64_vec().unwrap());
        assert!(integers(2).is_none_or(|points| points.iter().all(|z| *z == 0)), "symmetric grids");
        found.push(integers(0).unwrap().iter().map(|q| *q == 0).collect());
    }
    found
}

/// Asserts that what `stage` masked is masked in all `later` stages, and zero in the deployed file.
fn holds(run: &Run, stage: &str, later: &[&str]) {
    let first = run.model(&format!("{stage}.onnx"));
    let wanted = masks(&first);
    assert!(wanted.values().filter(|mask| mask.contains(&false)).count() > 3);
    for later in later {
        assert_eq!(masks(&run.model(&format!("{later}.onnx"))), wanted, "{later}");
    }
    let reads = |n: &&graph::Node| n.op_type == "Conv" || n.op_type == "Gemm";
    let names: Vec<String> = first.graph.nodes.iter().filter(reads).map(|n| first.values[n.input(1).unwrap()].name.clone()).collect();
    let deployed = zeros(&run.model("deploy.deployed.onnx"));
    assert_eq!(names.len(), deployed.len());
    for (name, zeros) in names.iter().zip(&deployed) {
        let Some(mask) = wanted.get(name) else { continue };
        assert_eq!(mask.len(), zeros.len(), "{name}");
        assert!(mask.iter().zip(zeros).all(|(live, zero)| *live || *zero), "{name}");
    }
}

#[test]
fn two_of_four_holds_through_quantization_and_training_into_the_file() {
    let prune = "kind = \"prune\"\ngranularity = { kind = \"n_m\", n = 2, m = 4 }\nteacher = \"train\"\nalpha = 0.5\nepochs = 1\n\
                 sparsity_schedule = { kind = \"linear\", end = 0.5, every = 5 }";
    let run = run(&on_digits(RESNET8, &[TRAIN, prune, QUANTIZE, "kind = \"finetune\"\nepochs = 1", DEPLOY_REFERENCE]), &[]).unwrap();
    holds(&run, "prune", &["quantize", "finetune"]);
    // The pattern is that of the granularity.
    let model = run.model("finetune.onnx");
    let pattern = Choice::<prune::Granularities>::named("n_m").unwrap();
    let mut checked = 0;
    for candidate in prune::candidates(&model, &[]).unwrap() {
        let prune::Units::Blocks { of, keep } = pattern.units(&candidate) else { continue };
        let live = model.annotations.mask(candidate.weight).unwrap().as_slice::<bool>().unwrap();
        let mut count = vec![0; of.iter().max().unwrap() + 1];
        of.iter().zip(live).for_each(|(block, live)| count[*block] += usize::from(*live));
        assert!(count.iter().all(|n| *n <= keep), "{}", candidate.name);
        checked += 1;
    }
    assert!(checked >= 6);
    let stage = run.record.stages.iter().find(|s| s.name == "prune").unwrap();
    let notes: Vec<&str> = stage.notes.iter().map(|n| n.text.as_str()).collect();
    assert!(notes.iter().any(|n| n.contains("these weights stay dense") && n.contains("fewer than 4")), "{notes:?}");
}

#[test]
fn blocks_hold_after_quantization_that_came_first() {
    let prune =
        "kind = \"prune\"\nsparsity = 0.5\nscope = \"layer\"\ngranularity = { kind = \"block\", rows = 2, columns = 2 }\nepochs = 1";
    let run = run(&on_digits(RESNET8, &[TRAIN, QUANTIZE, prune, "kind = \"finetune\"\nepochs = 1", DEPLOY_REFERENCE]), &[]).unwrap();
    holds(&run, "prune", &["finetune"]);
}

#[test]
fn weights_that_make_up_for_zeros_reach_the_file() {
    let prune = "kind = \"prune\"\nsparsity = 0.6\nscope = \"layer\"\ncriterion = { kind = \"obs\", batches = 4 }\n\
                 update = { kind = \"least_squares\", batches = 4 }";
    let train = "kind = \"train\"\nepochs = 3\noptimizer = { kind = \"adamw\", lr = 0.01 }";
    let run_of = |prune: &str| run(&on_digits(RESNET8, &[train, prune, DEPLOY_REFERENCE]), &[]).unwrap();
    let updated = run_of(prune);
    holds(&updated, "prune", &[]);
    let score = |run: &Run| run.record.deployed().unwrap().1.runtimes[0].accuracy.unwrap();
    let plain = run_of("kind = \"prune\"\nsparsity = 0.6\nscope = \"layer\"");
    assert!(score(&updated) > score(&plain), "{} {}", score(&updated), score(&plain));
}
