//! The one real model with a fixed batch: a face detector whose boxes are put together by arithmetic on shapes.
use espalier_train as train;

#[test]
fn a_detector_that_was_exported_for_one_image_is_opened() {
    let Some(path) = test_support::folders::shared("models/ultraface_rfb320.onnx") else { return };
    let mut model = onnx::load(&path).unwrap();
    assert_eq!(train::open_batch(&mut model), train::Batching::Opened);
}
