//! Model files and the arrays they run on.
use crate::support::{Folder, one_node, relu};
use espalier::graph::Node;
use espalier::onnx;
use espalier::tensor::Tensor;

fn folder_with_relu() -> Folder {
    let folder = Folder::new();
    onnx::save(&relu(), &folder.path("relu.onnx")).unwrap();
    folder
}

#[test]
fn a_missing_model() {
    Folder::new().fails("inspect nowhere.onnx", 1, "nowhere.onnx: No such file or directory");
}

#[test]
fn a_file_that_is_no_model() {
    let folder = Folder::new();
    folder.write("text.onnx", "this is no protobuf message");
    folder.fails("inspect text.onnx", 1, "text.onnx");
}

#[test]
fn an_empty_file() {
    let folder = Folder::new();
    folder.write("empty.onnx", "");
    folder.fails("inspect empty.onnx", 1, "empty.onnx: model: the file is empty");
}

#[test]
fn a_file_of_another_kind_is_named_for_what_it_is() {
    let folder = Folder::new();
    folder.write("net.pt", b"PK\x03\x04archive/data.pkl");
    folder.fails("inspect net.pt", 1, "torch.onnx.export");
    folder.write("net.tflite", b"\x1c\0\0\0TFL3\0\0\xff\xfe");
    folder.fails("quantize net.tflite --data rows -o out.onnx", 1, "TensorFlow Lite");
    folder.write("r.toml", b"name = \"digits\"\nseed = 1\n");
    folder.fails("inspect r.toml", 1, "this is text, not an ONNX model");
    folder.fails("run net.tflite", 1, "espalier init MODEL");
}

#[test]
fn a_truncated_model() {
    let folder = folder_with_relu();
    let bytes = std::fs::read(folder.path("relu.onnx")).unwrap();
    folder.write("half.onnx", &bytes[..bytes.len() / 2]);
    folder.fails("convert half.onnx -o out.onnx", 1, "half.onnx");
    assert!(!folder.path("out.onnx").exists());
}

#[test]
fn an_input_of_the_wrong_shape() {
    let folder = folder_with_relu();
    folder.arrays("in.npz", &[("x", Tensor::full(0f32, [1, 5]).unwrap())]);
    folder.fails("execute relu.onnx --input in.npz --output out.npz", 1, "input 'x'");
    assert!(!folder.path("out.npz").exists());
}

#[test]
fn an_input_of_the_wrong_type() {
    let folder = folder_with_relu();
    folder.arrays("in.npz", &[("x", Tensor::full(0i64, [1, 4]).unwrap())]);
    folder.fails("execute relu.onnx --input in.npz", 1, "input 'x'");
}

#[test]
fn an_input_that_is_not_given() {
    let folder = folder_with_relu();
    folder.arrays("in.npz", &[("z", Tensor::full(0f32, [1, 4]).unwrap())]);
    folder.fails("execute relu.onnx --input in.npz", 1, "'x'");
}

#[test]
fn an_operator_set_newer_than_all_known() {
    let folder = Folder::new();
    onnx::save(&one_node(29, Node::new("Relu", "act", &[], &[])), &folder.path("new.onnx")).unwrap();
    folder.arrays("in.npz", &[("x", Tensor::full(0f32, [1, 4]).unwrap())]);
    folder.fails("execute new.onnx --input in.npz", 1, "29");
}

#[test]
fn an_operator_that_is_not_known() {
    let folder = Folder::new();
    onnx::save(&one_node(13, Node::new("Frobnicate", "odd", &[], &[])), &folder.path("odd.onnx")).unwrap();
    folder.arrays("in.npz", &[("x", Tensor::full(0f32, [1, 4]).unwrap())]);
    folder.fails("execute odd.onnx --input in.npz", 1, "node 'odd': operator Frobnicate is not known");
}

#[test]
fn an_output_folder_that_does_not_exist() {
    folder_with_relu().fails("convert relu.onnx -o nowhere/out.onnx", 1, "nowhere");
}

#[test]
fn a_runtime_that_does_not_exist() {
    let folder = folder_with_relu();
    folder.arrays("in.npz", &[("x", Tensor::full(0f32, [1, 4]).unwrap())]);
    folder.fails("execute relu.onnx --input in.npz --runtime abacus", 1, "no runtime is named 'abacus'");
}

#[test]
fn an_unknown_option() {
    folder_with_relu().fails("inspect relu.onnx --colour", 2, "unexpected argument '--colour'");
}

#[test]
fn an_unknown_command() {
    Folder::new().fails("trian", 2, "unrecognized subcommand 'trian'");
}

#[test]
fn an_argument_that_is_missing() {
    Folder::new().fails("convert a.onnx", 2, "--output <FILE>");
}
