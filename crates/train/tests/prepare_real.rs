//! A real model whose recurrent weights lie in the branches of an If, sliced and joined there.
use espalier_train as train;
use tensor::{Tensor, random};
use train::{Executor, Mode, Named};

#[test]
fn the_weights_in_the_branches_of_a_voice_detector_are_all_seen() {
    let Some(path) = test_support::folders::shared("models/silero_vad_16k_op15.onnx") else { return };
    let mut model = onnx::load(&path).unwrap();
    let inputs = Named::from([
        ("input".into(), random::normal(1, &[2, 576], 0.0, 0.3).unwrap()),
        ("state".into(), random::normal(2, &[2, 2, 128], 0.0, 0.3).unwrap()),
        ("sr".into(), Tensor::scalar(16000i64)),
    ]);
    let run = |m: &train::Named, model: &graph::Model| Executor::new(model).unwrap().run(m, Mode::FLOAT).unwrap();
    let before = run(&inputs, &model);
    train::prepare(&mut model).unwrap();
    assert_eq!(run(&inputs, &model), before);
    let trained = train::parameters::trainable(&model, &[], false).unwrap();
    let elements = |name: &str| model.values.tensor(model.find(name).unwrap()).unwrap().len();
    // All that the file holds as initializers: 177,537 of them read directly, 132,096 in the recurrent layer.
    assert_eq!(trained.iter().map(|p| elements(&p.name)).sum::<usize>(), 309_633);
    assert!(trained.iter().any(|p| p.name == "model.decoder.rnn.weight_hh"));
    assert_eq!(train::unreached(&model).note(), None);
}
