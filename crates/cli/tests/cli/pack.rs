//! Models as archives and back.
use crate::program::run;
use std::fs;

#[test]
fn a_model_is_packed_and_comes_back_byte_by_byte() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let (model, archive) = (at("model.onnx"), at("model.onnx.espk"));
    assert_eq!(run(&["new", "lenet5", "-o", &model]).0, 0);
    let before = fs::read(&model).unwrap();
    let (code, text, errors) = run(&["pack", &model]);
    assert_eq!(code, 0, "{errors}");
    assert!(text.contains("model.onnx.espk: ") && text.contains("gives the model back byte by byte"), "{text}");
    assert!(fs::metadata(&archive).unwrap().len() < before.len() as u64);
    fs::remove_file(&model).unwrap();
    let (code, text, errors) = run(&["unpack", &archive]);
    assert_eq!(code, 0, "{errors}");
    assert!(text.contains("model.onnx: "), "{text}");
    assert_eq!(fs::read(&model).unwrap(), before);
    // A damaged archive is told, and what lies there stays.
    let mut damaged = fs::read(&archive).unwrap();
    damaged[1000] ^= 1;
    fs::write(&archive, damaged).unwrap();
    let (code, _, errors) = run(&["unpack", &archive]);
    assert_eq!(code, 1);
    assert!(errors.contains("model.onnx.espk: the archive is damaged"), "{errors}");
    assert_eq!(fs::read(&model).unwrap(), before);
    let refused = |arguments: &[&str], what: &str| {
        let (code, _, errors) = run(arguments);
        assert_eq!(code, 1);
        assert!(errors.contains(what), "{errors}");
    };
    refused(&["unpack", &model, "-o", &at("x")], "no archive");
    refused(&["unpack", &model], "say with -o what to write");
    refused(&["pack", &archive], "model.onnx.espk");
    refused(&["pack", &model, "-o", &model], "would be overwritten");
}
