//! Data sets.
use crate::support::Folder;
use espalier::tensor::Tensor;

/// A network for 4 x 4 images of two classes.
fn folder() -> Folder {
    let folder = Folder::new();
    let made = folder.espalier("new lenet300-100 --input 1,4,4 --classes 2 -o net.onnx");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    folder
}

fn labels(list: &[i64]) -> Tensor {
    Tensor::vector(list.to_vec())
}

#[test]
fn a_value_that_is_not_a_number() {
    let folder = folder();
    let mut x = vec![0f32; 3 * 16];
    x[2 * 16 + 5] = f32::NAN;
    folder.arrays("rows.npz", &[("x", Tensor::new(x, [3, 1, 4, 4]).unwrap()), ("y", labels(&[0, 1, 0]))]);
    folder.fails("evaluate net.onnx --data rows.npz", 1, "row 2");
}

#[test]
fn a_label_out_of_range() {
    let folder = folder();
    folder.arrays("rows.npz", &[("x", Tensor::full(0u8, [3, 4, 4]).unwrap()), ("y", labels(&[0, 7, 1]))]);
    folder.fails("evaluate net.onnx --data rows.npz", 1, "row 1");
}

#[test]
fn arrays_of_different_lengths() {
    let folder = folder();
    folder.arrays("rows.npz", &[("x", Tensor::full(0u8, [3, 4, 4]).unwrap()), ("y", labels(&[0, 1]))]);
    folder.fails("evaluate net.onnx --data rows.npz", 1, "array 'x' has 3 rows, array 'y' 2");
}

#[test]
fn an_image_that_cannot_be_decoded() {
    let folder = folder();
    folder.write("images/cat/1.png", b"\x89PNG\r\n\x1a\nno more");
    folder.write("images/dog/1.png", b"\x89PNG\r\n\x1a\nno more");
    folder.fails("evaluate net.onnx --data images", 1, "1.png");
}

#[test]
fn a_data_set_that_is_missing() {
    folder().fails("evaluate net.onnx --data nowhere", 1, "nowhere");
}

#[test]
fn a_truncated_archive() {
    let folder = folder();
    folder.arrays("rows.npz", &[("x", Tensor::full(0u8, [3, 4, 4]).unwrap()), ("y", labels(&[0, 1, 0]))]);
    let bytes = std::fs::read(folder.path("rows.npz")).unwrap();
    folder.write("half.npz", &bytes[..bytes.len() / 2]);
    folder.fails("evaluate net.onnx --data half.npz", 1, "half.npz");
}

#[test]
fn images_of_another_size_than_the_network_takes() {
    let folder = folder();
    folder.arrays("rows.npz", &[("x", Tensor::full(0u8, [3, 5, 5]).unwrap()), ("y", labels(&[0, 1, 0]))]);
    folder.fails("evaluate net.onnx --data rows.npz", 1, "5");
}

#[test]
fn a_class_without_rows_is_an_error_in_training_and_a_note_elsewhere() {
    let folder = Folder::new();
    let (x, y) = (Tensor::full(0.5f32, [4, 1, 8, 8]).unwrap(), Tensor::vector(vec![0i64, 1, 3, 1]));
    folder.arrays("set/train.npz", &[("images", x.clone()), ("labels", y.clone())]);
    folder.arrays("set/test.npz", &[("images", x), ("labels", y)]);
    assert!(folder.espalier("new mlp -o m.onnx --input 1,8,8 --classes 4").status.success());
    let evaluated = folder.espalier("evaluate m.onnx --data set");
    assert!(String::from_utf8_lossy(&evaluated.stdout).contains("no rows of class 2, of 4"), "{evaluated:?}");
    let head = "name = \"t\"\n[data]\ntrain = \"set\"\n[model]\nfile = \"m.onnx\"\n";
    folder.write("quantize.toml", format!("{head}[[stages]]\nkind = \"quantize\"\n"));
    let quantized = folder.espalier("run quantize.toml -v");
    assert!(quantized.status.success(), "{quantized:?}");
    assert!(String::from_utf8_lossy(&quantized.stderr).contains("no rows of class 2, of 4"), "{quantized:?}");
    folder.write("train.toml", format!("{head}[[stages]]\nkind = \"train\"\n"));
    folder.fails("run train.toml", 1, "set/train.npz: no rows of class 2, of 4: a class cannot be learnt without examples");
}
