//! Shared by the examples: a trained network and its data.
use espalier::commands::PreprocessChanges;
use espalier::graph::Model;
use espalier::train::{CrossEntropy, TrainContext, TrainSettings, train};
use espalier::{DataSet, onnx, train, zoo};
use std::error::Error;

/// The model and the data set that the command line names (`MODEL.onnx DATA`); without them a small network that has learned the digits
/// which come with the repository.
pub(crate) fn trained() -> Result<(Model, DataSet), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [model, data] = arguments.as_slice() {
        let mut model = onnx::load(model.as_ref())?;
        train::prepare(&mut model)?;
        train::open_batch(&mut model);
        return Ok((model, DataSet::new(data)));
    }
    let digits = DataSet::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../recipes/data/digits"));
    let digits = digits.preprocess(PreprocessChanges { scale: Some(1.0 / 16.0), ..PreprocessChanges::default() });
    let mut model = zoo::build("resnet8", &zoo::ZooOptions { input: vec![1, 8, 8], classes: 10, width: 0.5, seed: 1 })?;
    digits.describe(&mut model)?;
    let loss = CrossEntropy::of(&model, 0.0)?;
    let settings = TrainSettings { epochs: 5, ..TrainSettings::default() };
    let samples = digits.train(&model)?;
    train(&mut model, &samples, &loss, &settings, &mut TrainContext::default())?;
    Ok((model, digits))
}
