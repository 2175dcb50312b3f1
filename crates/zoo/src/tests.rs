//! Shapes and parameter counts against the published figures.
use crate::{ZooOptions, build, find, list};
use graph::{Dim, Model};

/// Elements of float constants that are not running statistics.
fn trainable(model: &Model) -> usize {
    let named = |v: &graph::ValueId| !model.values[*v].name.contains(".running_") && !model.values[*v].name.starts_with("relu6");
    let floats = model.graph.constants.iter().filter(|v| named(v) && model.values[**v].dtype() == Some(tensor::DType::F32));
    floats.filter_map(|v| model.values.tensor(*v)).map(|t| t.len()).sum()
}

fn default(name: &str) -> Model {
    let entry = find(name).unwrap();
    entry.build(&entry.default_options()).unwrap()
}

#[test]
fn parameter_counts_are_the_published_ones() {
    for (name, count) in [
        ("lenet300-100", 266_610),
        ("lenet5", 431_080),
        ("mlp", 64 * 256 + 256 + 256 * 128 + 128 + 128 * 10 + 10),
        ("resnet20", 269_722),
        ("resnet32", 464_154),
        ("resnet44", 658_586),
        ("resnet56", 853_018),
        ("resnet18", 11_689_512),
        ("mobilenet-v1", 4_231_976),
        ("mobilenet-v2", 3_504_872),
        // MLPerf's 77,706 folded parameters; a bias becomes scale and shift in each of the seven normalizations (240 channels).
        ("resnet8", 77_706 + 240),
        // The same with 22,604 and nine normalizations of 64 channels.
        ("ds-cnn", 22_604 + 9 * 64),
    ] {
        assert_eq!(trainable(&default(name)), count, "{name}");
    }
}

#[test]
fn resnet20_has_the_constants_of_the_reference_file() {
    let model = default("resnet20");
    let all: usize = model.graph.constants.iter().filter_map(|v| model.values.tensor(*v)).map(|t| t.len()).sum();
    assert_eq!(all, 271_122);
    assert!(model.find("layer1.0.conv1.weight").is_some() && model.find("layer3.2.bn2.running_var").is_some());
}

#[test]
fn every_architecture_builds_narrow_wide_and_for_other_classes() {
    for entry in list() {
        for width in [0.1, 0.5, 1.0] {
            let options = ZooOptions { width, classes: 7, ..entry.default_options() };
            let model = entry.build(&options).unwrap();
            let shape = model.values[model.graph.outputs[0]].shape().unwrap();
            assert_eq!(shape, [Dim::Symbol("N".into()), Dim::Known(7)], "{}", entry.name);
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_network_and_another_another() {
    let entry = find("lenet5").unwrap();
    let options = entry.default_options();
    assert_eq!(entry.build(&options).unwrap(), entry.build(&options).unwrap());
    assert_ne!(entry.build(&options).unwrap(), entry.build(&ZooOptions { seed: 1, ..options }).unwrap());
}

#[test]
fn bad_options_are_refused_by_name() {
    let options = find("lenet5").unwrap().default_options();
    let message = |o: ZooOptions| build("lenet5", &o).unwrap_err().to_string();
    assert!(message(ZooOptions { width: 0.0, ..options.clone() }).contains("width"));
    assert!(message(ZooOptions { width: f64::NAN, ..options.clone() }).contains("width"));
    assert!(message(ZooOptions { classes: 0, ..options.clone() }).contains("classes"));
    assert!(message(ZooOptions { input: vec![784], ..options.clone() }).contains("input"));
    assert!(message(ZooOptions { input: vec![1, 8, 8], ..options.clone() }).contains("conv2"));
    assert!(build("resnet2o", &options).unwrap_err().to_string().contains("did you mean 'resnet20'"));
}

#[test]
fn names_ignore_case_and_separators() {
    assert_eq!(find("LeNet_300_100").unwrap().name, "lenet300-100");
    assert_eq!(find("MobileNetV2").unwrap().name, "mobilenet-v2");
}
