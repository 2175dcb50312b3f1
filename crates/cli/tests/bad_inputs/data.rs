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

/// Classes whose images are all of one shade, below `folder`.
fn shades(folder: &Folder, below: &str, classes: &[(&str, u8)]) {
    for (class, shade) in classes {
        // A bitmap of 8 x 8 grey pixels: header, palette, rows from the bottom.
        let mut bmp = [b"BM".as_slice(), &(1078u32 + 64).to_le_bytes(), &[0; 4], &1078u32.to_le_bytes(), &40u32.to_le_bytes()].concat();
        bmp.extend([8i32.to_le_bytes(), 8i32.to_le_bytes()].concat());
        bmp.extend([1u16.to_le_bytes(), 8u16.to_le_bytes()].concat());
        bmp.extend([0u8; 24]);
        (0..=255u8).for_each(|v| bmp.extend([v, v, v, 0]));
        bmp.extend([*shade; 64]);
        (0..3).for_each(|i| folder.write(&format!("{below}/{class}/{i}.bmp"), &bmp));
    }
}

#[test]
fn a_test_folder_that_lacks_a_class_keeps_the_labels_of_the_others() {
    let folder = Folder::new();
    shades(&folder, "img/train", &[("0", 0), ("180", 80), ("270", 160), ("90", 240)]);
    shades(&folder, "img/test", &[("0", 0), ("270", 160), ("90", 240)]);
    assert!(folder.espalier("new mlp -o m.onnx --input 3,8,8 --classes 4").status.success());
    folder.fails("evaluate m.onnx --data img/test", 1, "img/test: its 3 classes are 0, 270, 90, the network has 4, and neither");
    // Beside its training set the order of classes is known, and the missing class is named.
    let said = folder.espalier("evaluate m.onnx --data img");
    assert!(String::from_utf8_lossy(&said.stdout).contains("no rows of class 1 (180), of 4"), "{said:?}");
    let recipe = "name = \"t\"\n[data]\ntrain = \"img\"\ntest = \"img\"\n[model]\nfile = \"m.onnx\"\n[[stages]]\nkind = \"train\"\nepochs = 200\n\
                  batch = 12\noptimizer = { kind = \"adamw\", lr = 0.003 }\n[[stages]]\nkind = \"deploy\"\ntarget = \"reference\"\nlatency_runs = 1\n";
    folder.write("r.toml", recipe);
    let run = folder.espalier("run r.toml --out out --json");
    let told: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    let trained = &told["result"]["stages"][0]["metrics"]["accuracy"];
    assert_eq!(trained.as_f64(), Some(1.0), "{trained} {}", String::from_utf8_lossy(&run.stderr));
    // The deployed file holds the class names, so the folder alone suffices.
    let said = folder.espalier("evaluate out/deploy.deployed.onnx --data img/test");
    assert!(String::from_utf8_lossy(&said.stdout).contains("accuracy 100.00 % (9 of 9)"), "{said:?}");
    shades(&folder, "other", &[("0", 0), ("45", 160)]);
    folder.fails("evaluate out/deploy.deployed.onnx --data other", 1, "class '45' is not among the classes that the network knows, 0, 180");
}

#[test]
fn preprocessing_of_arrays_is_applied_or_refused_and_never_only_told() {
    let folder = folder();
    folder.arrays("f.npz", &[("x", Tensor::full(100f32, [3, 1, 4, 4]).unwrap()), ("y", labels(&[0, 1, 0]))]);
    let said = |line: &str| String::from_utf8_lossy(&folder.espalier(line).stdout).into_owned();
    assert!(said("evaluate net.onnx --data f.npz").contains("preprocessing: none, the data are arrays and taken as they are"));
    folder.fails("evaluate net.onnx --data f.npz --mean 0.5", 1, "f.npz: preprocessing is given, and the data are arrays, not images");
    assert!(said("evaluate net.onnx --data f.npz --mean 0.5 --scale 0.01 --arrays").contains("preprocessing: as given"));
    folder.fails("evaluate net.onnx --data f.npz --arrays --crop 2", 1, "preprocess.crop cannot be applied to an array");
    let recipe = |rest: &str| {
        format!("name = \"t\"\n[data]\ntrain = \"f.npz\"\n{rest}[model]\nfile = \"net.onnx\"\n[[stages]]\nkind = \"quantize\"\n")
    };
    folder.write("p.toml", recipe("[data.preprocess]\nmean = [0.5]\n"));
    folder.fails("run p.toml", 1, "with arrays = true (--arrays) scale, mean, std and augmentation are applied");
    folder.write("a.toml", recipe("[data.augment]\nflip = true\n"));
    folder.fails("run a.toml", 1, "augmentation is asked for, and the data are arrays");
    // Settings that were not applied are not written into the file; settings that were applied are.
    folder.write("n.toml", recipe(""));
    assert!(folder.espalier("run n.toml --out n").status.success());
    assert!(!said("inspect n/quantize.onnx --json").contains("espalier.preprocess"));
    folder.write("y.toml", recipe("[data.preprocess]\nmean = [0.5]\narrays = true\n"));
    assert!(folder.espalier("run y.toml --out y").status.success());
    assert!(said("inspect y/quantize.onnx --json").contains("espalier.preprocess"));
    assert!(said("evaluate y/quantize.onnx --data f.npz").contains("preprocessing: from the model's metadata"));
}

#[test]
fn a_limit_says_what_it_leaves_out() {
    let folder = Folder::new();
    shades(&folder, "img", &[("a", 0), ("b", 80), ("c", 160)]);
    assert!(folder.espalier("new mlp -o m.onnx --input 3,8,8 --classes 3").status.success());
    folder.fails("evaluate m.onnx --data img --limit 0", 1, "--limit 0 leaves nothing to run on");
    let said = |limit: &str| {
        let output = folder.espalier(&format!("evaluate m.onnx --data img --limit {limit}"));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let two = said("2");
    assert!(two.contains("no rows of class 2 (c), of 3 among the rows that --limit takes"), "{two}");
    assert!(!said("3").contains("no rows"), "some of each");
}
