//! The one real model with a fixed batch: a face detector whose boxes are put together by arithmetic on shapes.
use espalier_train as train;
use std::path::PathBuf;

#[test]
fn a_detector_that_was_exported_for_one_image_is_opened() {
    let root = std::env::var_os("ESPALIER_DATA")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data")), PathBuf::from);
    let path = root.join("models/ultraface_rfb320.onnx");
    if !path.exists() {
        println!("skipped: no {} (set ESPALIER_DATA)", path.display());
        return;
    }
    let mut model = onnx::load(&path).unwrap();
    assert_eq!(train::open_batch(&mut model), train::Batching::Opened);
}
